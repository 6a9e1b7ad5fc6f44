/* SLUB: lists of slabs, and what allocating and freeing come to where the fast path ends. */

/* --- SLUB: lists --- */

static void node_add_tail(struct sim *S, int cache, int slab)
{
	struct node_cache *n = &S->node[cache];
	struct slab *s = &S->slab[slab];

	s->where = NODE_PARTIAL;
	s->next = 0;
	s->prev = n->tail;
	if (n->tail)
		S->slab[n->tail].next = slab;
	else
		n->head = slab;
	n->tail = slab;
	n->nr_partial++;
}

static void node_remove(struct sim *S, int cache, int slab)
{
	struct node_cache *n = &S->node[cache];
	const struct slab *s = &S->slab[slab];

	if (s->prev)
		S->slab[s->prev].next = s->next;
	else
		n->head = s->next;
	if (s->next)
		S->slab[s->next].prev = s->prev;
	else
		n->tail = s->prev;
	n->nr_partial--;
}

static void discard(struct sim *S, int slab, int cpu)
{
	struct kernel *k = S->k;
	struct slab *s = &S->slab[slab];
	struct cache *c = &S->cache[s->cache];

	c->nr_slabs--;
	c->num_objs -= s->objects;
	c->slabs_gone++;
	s->where = RCU_FREE;
	s->next = 0;
	if (c->slab_flags & SLAB_TYPESAFE_BY_RCU) {
		struct rcu *wait = &S->rcu[k->rcu_tail & S->rcu_mask];

		wait->due = k->now + k->rcu_delay;
		wait->slab = slab;
		wait->cpu = cpu;
		if (k->rcu_tail == k->rcu_head && wait->due < k->next_due)
			k->next_due = wait->due;
		k->rcu_tail++;
	} else {
		if (k->release)
			S->slab[k->release_tail].next = slab;
		else
			k->release = slab;
		k->release_tail = slab;
	}
}

static void put_on_node(struct sim *S, int cache, int slab, int cpu)
{
	if (!S->slab[slab].inuse && S->node[cache].nr_partial >= S->cache[cache].min_partial)
		discard(S, slab, cpu);
	else
		node_add_tail(S, cache, slab);
}

static inline void push_cpu_partial(struct sim *S, struct cpu_cache *pc, int slab)
{
	struct slab *s = &S->slab[slab];

	s->where = CPU_PARTIAL;
	s->next = pc->partial;
	s->pobjects = s->objects - s->inuse;
	if (pc->partial)
		s->pobjects += S->slab[pc->partial].pobjects;
	pc->partial = slab;
	pc->nr_partial++;
}

static void put_cpu_partial(struct sim *S, int cache, int cpu, int slab)
{
	struct cpu_cache *pc = cpu_cache(S, cache, cpu);

	if (pc->partial && pc->nr_partial >= S->cache[cache].cpu_partial) {
		count(S, DRAIN_CPU_PARTIAL);
		write_line(S, &S->node[cache], 1);
		for (int old = pc->partial, next; old; old = next) {
			next = S->slab[old].next;
			put_on_node(S, cache, old, cpu);
			count(S, DRAINED_SLAB);
		}
		pc->partial = 0;
		pc->nr_partial = 0;
	}
	push_cpu_partial(S, pc, slab);
}

/* --- SLUB: free --- */

static void free_slow(struct sim *S, int cache, int cpu, int slab)
{
	const struct slab *s = &S->slab[slab];

	switch (s->where) {
	case CPU_PARTIAL:
		count(S, FREE_CPU_PARTIAL);
		break;
	case NODE_PARTIAL:
		count(S, FREE_NODE_PARTIAL);
		if (s->inuse)
			break;
		write_line(S, &S->node[cache], 1);
		if (S->node[cache].nr_partial >= S->cache[cache].min_partial) {
			node_remove(S, cache, slab);
			discard(S, slab, cpu);
		}
		break;
	case FULL:
		if (S->cache[cache].cpu_partial) {
			count(S, FREE_TO_CPU_PARTIAL);
			put_cpu_partial(S, cache, cpu, slab);
		} else {
			count(S, FREE_FULL_TO_NODE);
			write_line(S, &S->node[cache], 1);
			put_on_node(S, cache, slab, cpu);
		}
		break;
	default:
		count(S, FREE_CPU_SLAB_REMOTE);
	}
}

/* --- SLUB: alloc --- */

static int take_partial(struct sim *S, int cache, struct cpu_cache *pc)
{
	struct node_cache *n = &S->node[cache];
	const int slab = n->head, limit = S->cache[cache].cpu_partial;

	if (!slab)
		return 0;
	write_line(S, n, 1);
	node_remove(S, cache, slab);
	count(S, ALLOC_NODE_PARTIAL);
	if (!limit)
		return slab;
	for (int got = 0; got <= limit / 2 && n->head; got++) {
		const int extra = n->head;

		node_remove(S, cache, extra);
		push_cpu_partial(S, pc, extra);
		count(S, NODE_PARTIAL_EXTRA);
	}
	return slab;
}

static int new_slab(struct sim *S, int cache, int cpu)
{
	struct kernel *k = S->k;
	struct cache *c = &S->cache[cache];
	int order = c->order, pfn = alloc_pages(S, order), slab;
	struct slab *s;

	if (unlikely(pfn < 0)) {
		if (order == c->min_order)
			return 0;
		order = c->min_order;
		pfn = alloc_pages(S, order);
		if (pfn < 0)
			return 0;
	}
	slab = k->free_slab;
	if (slab)
		k->free_slab = S->slab[slab].next;
	else
		slab = ++k->nr_slab_rows;
	s = &S->slab[slab];
	s->cache = cache;
	s->pfn = pfn;
	s->objects = order == c->order ? c->objects : (k->page_size << order) / c->slot;
	s->inuse = 0;
	s->order = order;
	s->node = 0;
	s->vector = 0;
	s->memcg = 0;
	if (!strategy_slab_new(S, cpu, cache, order, slab)) {
		s->next = k->free_slab;
		k->free_slab = slab;
		free_pages(S, pfn, order);
		return -1;
	}
	c->nr_slabs++;
	c->num_objs += s->objects;
	c->slabs_made++;
	k->nr_slab_pages += 1 << order;
	k->nr_free_pages -= 1 << order;
	count(S, SLAB_MADE);
	count(S, ALLOC_NEW_SLAB);
	return slab;
}

/* A slab with free objects as this CPU's active slab; 0 without pages, -1 over a limit. */
static int alloc_slow(struct sim *S, int cache, int cpu)
{
	struct cpu_cache *pc = cpu_cache(S, cache, cpu);
	int slab = pc->slab;
	struct slab *s;

	if (slab) {
		s = &S->slab[slab];
		if (s->inuse < s->objects) {
			count(S, ALLOC_REMOTE_FREED);
			pc->free = s->objects - s->inuse;
			return slab;
		}
		s->where = FULL;
		pc->slab = 0;
	}
	slab = pc->partial;
	if (slab) {
		count(S, ALLOC_CPU_PARTIAL);
		pc->partial = S->slab[slab].next;
		pc->nr_partial--;
	} else {
		slab = take_partial(S, cache, pc);
		if (!slab)
			slab = new_slab(S, cache, cpu);
		if (slab <= 0)
			return slab;
	}
	s = &S->slab[slab];
	s->where = CPU;
	pc->slab = slab;
	pc->free = s->objects - s->inuse;
	return slab;
}
