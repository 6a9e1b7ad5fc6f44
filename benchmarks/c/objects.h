/* Objects, and who pays for them. */

/* Count nr (1 or -1) slots for whom they are billed to, or for the reason why to nobody. */
static inline void bill_object(struct sim *S, const struct cache *c, int billed, int nr)
{
#if STRATEGY == COSTA_2012
	if (billed == BY_CACHE) {
		if (c->memcg) {
			S->memcg[c->memcg].billed_slab += c->slot * nr;
			return;
		}
		billed = -CAUSE_NOT_SELECTED;
	}
#endif
	if (billed > 0) {
		S->memcg[holder(S, billed)].billed_slab += c->slot * nr;
	} else {
		S->unbilled[-billed].bytes += c->slot * nr;
		S->unbilled[-billed].objects += nr;
	}
}

static inline int alloc_object(struct sim *S, int cpu, int memcg, int root, uint32_t gfp, int req,
			       int obj)
{
	struct object *o = &S->obj[obj];
	const int cache = strategy_select(S, memcg, root, gfp);
	const struct cache *c = &S->cache[cache];
	struct cpu_cache *pc = cpu_cache(S, cache, cpu);
	int billed = memcg > 1 ? -CAUSE_NOT_SELECTED : 0;
	int slab = pc->slab;
	struct memcg *g;
	bool failed;

#if STRATEGY == COSTA_2012
	if (c->memcg)
		billed = BY_CACHE;
#endif
	if (pc->free <= 0) {
		slab = alloc_slow(S, cache, cpu);
		if (unlikely(slab <= 0))
			return slab < 0 ? FAIL_LIMIT : FAIL_PAGES;
	}
	pc->free--;
	S->slab[slab].inuse++;
	o->slab = slab;
	o->req = req > 0 ? req : c->object_size;
	pc->live++;
	pc->req += o->req;
	billed = strategy_post_alloc(S, cpu, memcg, cache, gfp, slab, billed);
	failed = billed == NOMEM;
	if (unlikely(failed)) {
		billed = 0;
		memcg = 0;
		queue_internal(S, FREE, cpu, PAST_SHEAVES, obj);
	}
	o->owner = memcg;
	o->billed = billed;
	g = &S->memcg[memcg];
	g->true_slab += c->slot;
	g->objects++;
	bill_object(S, c, billed, 1);
	return failed ? FAIL_LIMIT : 0;
}

static inline void free_object(struct sim *S, int cpu, int obj)
{
	struct object *o = &S->obj[obj];
	const int slab = o->slab, billed = o->billed, cache = S->slab[slab].cache;
	const struct cache *c = &S->cache[cache];
	struct cpu_cache *pc = cpu_cache(S, cache, cpu);
	struct memcg *g = &S->memcg[o->owner];

	g->true_slab -= c->slot;
	g->objects--;
	bill_object(S, c, billed, -1);
	strategy_obj_free(S, cpu, cache, billed, slab);
	pc->live--;
	pc->req -= o->req;
	o->slab = 0;
	S->slab[slab].inuse--;
	if (pc->slab == slab)
		pc->free++;
	else
		free_slow(S, cache, cpu, slab);
}
