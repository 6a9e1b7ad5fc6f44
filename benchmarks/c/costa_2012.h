/* costa-2012: caches are copied for every group, and slabs charged. */

static inline int copy_of(struct sim *S, int memcg, int root)
{
	return S->child[memcg * (S->k->nr_root_caches + 1) + root].cache;
}

static void make_copy(struct sim *S, int memcg, int root)
{
	struct kernel *k = S->k;
	const struct cache *r = &S->cache[root];
	const int row = k->nr_caches;
	struct cache *c = &S->cache[row];

	if (row >= S->nr_caches_max)
		return;
	k->nr_caches++;
	c->slot = r->slot;
	c->object_size = r->object_size;
	c->objects = r->objects;
	c->slab_flags = r->slab_flags;
	c->memcg = memcg;
	c->pays = memcg;
	c->root = root;
	c->min_partial = r->min_partial;
	c->cpu_partial = r->cpu_partial;
	c->order = r->order;
	c->min_order = r->min_order;
	c->vector_cache = r->vector_cache;
	c->vector_bytes = r->vector_bytes;
	c->min_vector_cache = r->min_vector_cache;
	c->min_vector_bytes = r->min_vector_bytes;
	S->child[memcg * (k->nr_root_caches + 1) + root].cache = row;
	k->metadata += 256 + 128 * k->nr_nodes + 32 * k->nr_cpus;
	count(S, COPY_MADE);
}

static void strategy_cg_create(struct sim *S, int memcg)
{
	if (memcg > 1)
		for (int root = 1; root <= S->k->nr_root_caches; root++)
			if (S->selected[root].on) {
				make_copy(S, memcg, root);
				S->memcg[memcg].css_refs++;
			}
}

static inline int strategy_select(struct sim *S, int memcg, int cache, uint32_t gfp)
{
	int copy;

	if (!S->selected[cache].on || gfp & CTX_KTHREAD)
		return cache;
	count(S, SELECT_COPY);
	if (memcg <= 1)
		return cache;
	copy = copy_of(S, memcg, cache);
	return copy ? copy : cache;
}

static bool strategy_slab_new(struct sim *S, int cpu, int cache, int order, int slab)
{
	const int owner = S->cache[cache].memcg;

	(void)cpu;
	count(S, SLAB_OWNER_TEST);
	if (!owner)
		return true;
	if (counter_charge(S, S->independent ? COUNTER_KMEM : COUNTER_MEMORY, owner, 1 << order))
		return false;
	S->slab[slab].memcg = owner;
	return true;
}

static void strategy_slab_gone(struct sim *S, int cache, int order, int slab)
{
	const int which = S->independent ? COUNTER_KMEM : COUNTER_MEMORY;

	count(S, SLAB_OWNER_TEST);
	if (S->slab[slab].memcg)
		counter_uncharge(S, which, S->slab[slab].memcg, 1 << order);
	if (unlikely(S->cache[cache].state == 1))
		abort(); /* only once groups go away */
}

static inline int strategy_post_alloc(struct sim *S, int cpu, int memcg, int cache, uint32_t gfp,
				      int slab, int billed)
{
	(void)S, (void)cpu, (void)memcg, (void)cache, (void)gfp, (void)slab;
	return billed;
}

static inline void strategy_obj_free(struct sim *S, int cpu, int cache, int billed, int slab)
{
	(void)cpu, (void)billed;
	if (unlikely(S->cache[cache].state == 1) && S->slab[slab].where == FULL)
		abort();
}
