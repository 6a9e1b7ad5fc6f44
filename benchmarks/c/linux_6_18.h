/* linux-6.18: objects are charged by the byte, to an obj_cgroup, from a stock on each CPU. */

#include "page_stock.h"

static inline void strategy_cg_create(struct sim *S, int memcg)
{
	if (memcg > 1)
		S->mode->on = 1;
}

static inline int strategy_select(struct sim *S, int memcg, int cache, uint32_t gfp)
{
	(void)S, (void)memcg, (void)gfp;
	return cache;
}

static inline void strategy_slab_gone(struct sim *S, int cache, int order, int slab)
{
	(void)S, (void)cache, (void)order, (void)slab;
}

static inline void ask_vector(struct sim *S, int cpu, int slab)
{
	struct slab *s = &S->slab[slab];
	const struct cache *c;
	bool full;
	int from;

	if (s->vector)
		return;
	s->vector = 1;
	c = &S->cache[s->cache];
	full = s->order == c->order;
	S->k->metadata += full ? c->vector_bytes : c->min_vector_bytes;
	from = full ? c->vector_cache : c->min_vector_cache;
	if (from)
		queue_internal(S, ALLOC, cpu, from, S->k->nr_objects + slab);
}

static bool charge_pages(struct sim *S, int cpu, int memcg, int nr, uint32_t gfp)
{
	if (!try_charge(S, cpu, memcg, nr, gfp))
		return false;
	count(S, KMEM_STATISTIC);
	counter_force(S, COUNTER_KMEM, memcg, nr);
	return true;
}

static void uncharge_pages(struct sim *S, int cpu, int memcg, int nr, bool through_stock)
{
	count(S, KMEM_STATISTIC);
	counter_uncharge(S, COUNTER_KMEM, memcg, nr);
	if (through_stock && memcg > 1)
		refill_stock(S, cpu, memcg, nr);
	else
		counter_uncharge(S, COUNTER_MEMORY, memcg, nr);
}

static void uncharge_objcg(struct sim *S, int cpu, int objcg, int nr, bool through_stock)
{
	int memcg = holder(S, objcg);

	S->memcg[memcg].objcg_pages -= nr;
	uncharge_pages(S, cpu, memcg, nr, through_stock);
}

static inline void flush_vmstat(struct sim *S, struct byte_stock *stock)
{
	if (stock->reclaimable) {
		stock->reclaimable = 0;
		count(S, VMSTAT_UPDATE);
	}
	if (stock->unreclaimable) {
		stock->unreclaimable = 0;
		count(S, VMSTAT_UPDATE);
	}
}

static inline void account_vmstat(struct sim *S, struct byte_stock *stock, int node, int flags,
				  int nr_bytes)
{
	int *bytes = flags & SLAB_RECLAIM_ACCOUNT ? &stock->reclaimable : &stock->unreclaimable;
	int held;

	if (unlikely(stock->node != node)) {
		flush_vmstat(S, stock);
		stock->node = node;
	}
	held = *bytes;
	*bytes += nr_bytes;
	if (unlikely(abs(*bytes) > S->mode->batch) && (held || !S->mode->batch)) {
		*bytes = 0;
		count(S, VMSTAT_UPDATE);
	}
}

static void drain(struct sim *S, int cpu)
{
	struct byte_stock *stock = &S->byte_stock[cpu * MAX_SLOTS];
	const int objcg = stock->objcg, shift = S->k->page_shift;
	int rest = stock->bytes & ((1 << shift) - 1);

	if (!objcg)
		return;
	count(S, BYTE_STOCK_DRAIN);
	if (stock->bytes >> shift) {
		count(S, BYTE_STOCK_PAGES_BACK);
		read_line(S, &S->left[objcg]);
		uncharge_objcg(S, cpu, objcg, stock->bytes >> shift, false);
	}
	if (stock->bytes)
		write_line(S, &S->left[objcg], 0);
	S->left[objcg].bytes += rest;
	S->memcg[objcg].nr_charged_bytes += rest;
	flush_vmstat(S, stock);
	stock->objcg = 0;
	stock->bytes = 0;
	if (unlikely(S->memcg[objcg].state != ONLINE))
		abort(); /* groups do not go away here */
}

static inline void refill_bytes(struct sim *S, int cpu, int objcg, int nr_bytes, bool keep,
				int node, int flags, int acct)
{
	struct byte_stock *stock = &S->byte_stock[cpu * MAX_SLOTS];
	const int shift = S->k->page_shift;

	if (stock->objcg != objcg) {
		drain(S, cpu);
		read_line(S, &S->left[objcg]);
		if (S->left[objcg].bytes)
			write_line(S, &S->left[objcg], 0);
		stock->objcg = objcg;
		stock->bytes = S->left[objcg].bytes;
		S->memcg[objcg].nr_charged_bytes -= stock->bytes;
		S->left[objcg].bytes = 0;
		keep = false;
	}
	stock->bytes += nr_bytes;
	account_vmstat(S, stock, node, flags, acct);
	if (stock->bytes > 1 << shift && !keep) {
		int nr = stock->bytes >> shift;

		count(S, BYTE_STOCK_PAGES_BACK);
		stock->bytes &= (1 << shift) - 1;
		read_line(S, &S->left[objcg]);
		uncharge_objcg(S, cpu, objcg, nr, true);
	}
}

static bool charge_bytes(struct sim *S, int cpu, int memcg, int nr_bytes, uint32_t gfp, int node,
			 int flags)
{
	struct byte_stock *stock = &S->byte_stock[cpu * MAX_SLOTS];
	const int shift = S->k->page_shift;
	int nr, rest;

	read_line(S, &S->left[memcg]);
	if (stock->objcg == memcg && stock->bytes >= nr_bytes) {
		stock->bytes -= nr_bytes;
		count(S, BYTE_STOCK_HIT);
		account_vmstat(S, stock, node, flags, nr_bytes);
		return true;
	}
	count(S, BYTE_STOCK_MISS);
	read_line(S, &S->left[memcg]);
	nr = nr_bytes >> shift;
	rest = nr_bytes & ((1 << shift) - 1);
	if (!charge_pages(S, cpu, memcg, nr + (rest > 0), gfp))
		return false;
	S->memcg[memcg].objcg_pages += nr + (rest > 0);
	refill_bytes(S, cpu, memcg, -rest & ((1 << shift) - 1), true, node, flags, nr_bytes);
	return true;
}

static inline int strategy_post_alloc(struct sim *S, int cpu, int memcg, int cache, uint32_t gfp,
				      int slab, int billed)
{
	if (!(S->cache[cache].slab_flags & SLAB_ACCOUNT) && !(gfp & GFP_ACCOUNT))
		return billed;
	if (memcg <= 1) {
		S->path[OBJCG_OF_ROOT].count += S->mode->on;
		return billed;
	}
	if (gfp & CTX_INTERRUPT)
		return -CAUSE_INTERRUPT;
	if (gfp & CTX_KTHREAD)
		return -CAUSE_KTHREAD;
	if (unlikely(S->memcg[memcg].state != ONLINE))
		abort();
	ask_vector(S, cpu, slab);
	if (S->cache[cache].slab_flags & SLAB_RECLAIM_ACCOUNT)
		count(S, LIST_LRU_FOUND);
	if (!charge_bytes(S, cpu, memcg, S->cache[cache].slot + 8, gfp, S->slab[slab].node,
			  S->cache[cache].slab_flags))
		return NOMEM;
	S->memcg[memcg].objcg_refs++;
	return memcg;
}

static inline bool strategy_slab_new(struct sim *S, int cpu, int cache, int order, int slab)
{
	(void)order;
	if (S->cache[cache].slab_flags & SLAB_ACCOUNT)
		ask_vector(S, cpu, slab);
	return true;
}

static inline void strategy_obj_free(struct sim *S, int cpu, int cache, int billed, int slab)
{
	const struct cache *c = &S->cache[cache];

	if (billed > 0) {
		S->memcg[billed].objcg_refs--;
		count(S, BYTE_STOCK_BACK);
		refill_bytes(S, cpu, billed, c->slot + 8, false, S->slab[slab].node, c->slab_flags,
			     -c->slot - 8);
		read_line(S, &S->left[billed]);
	} else {
		S->path[S->slab[slab].vector ? OBJCG_NONE : FREE_TEST].count += S->mode->on;
	}
}
