/*
 * The model of kmbench, written out by hand for one strategy at a time: what the compiled engine's
 * speed is measured against.  Nothing here is used by kmbench.
 *
 * It serves what the benchmark's stream asks for (objects allocated and freed, groups created, RCU
 * delayed slabs) by the rules of Linux 6.18 on one node without sheaves.  The records and their
 * field names are those of kmbench/core/state.py: yardstick.py writes them to layout.h and hands
 * over the zeroed tables, so that every table of both can be compared afterwards.
 *
 *   cc -O3 -march=native -DSTRATEGY=NONE|COSTA_2012|LINUX_6_18 [-DLOOK_AHEAD] ...
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "layout.h"

#define NONE 0
#define COSTA_2012 1
#define LINUX_6_18 2

#define OBJECT_AHEAD 24
#define SLAB_AHEAD 10

#define unlikely(x) __builtin_expect(!!(x), 0)
#define rarely __attribute__((noinline, cold))

/* Tables, and the strategy's own; lengths that the model needs. */
struct sim {
	struct kernel *k;
	struct object *obj;
	struct slab *slab;
	struct cpu_cache *cpu;
	struct node_cache *node;
	struct cache *cache;
	struct memcg *memcg;
	struct counter *counter;
	struct stock *stock;
	struct child *child;
	struct path *path;
	struct unbilled *unbilled;
	struct pfn *pfn;
	struct area *area;
	struct internal *internal;
	struct rcu *rcu;
	struct fail *fail;
	struct byte_stock *byte_stock; /* linux-6.18: one slot of MAX_SLOTS is in use */
	struct left *left;
	struct mode *mode;
	struct selected *selected; /* costa-2012 */
	int32_t internal_mask, rcu_mask, nr_pfns, nr_caches_max, nr_fails_max, independent;
};

enum { NOMEM = -100, PAST_SHEAVES = 1 };

static inline void count(struct sim *S, int path)
{
	S->path[path].count++;
}

static inline struct cpu_cache *cpu_cache(struct sim *S, int cache, int cpu)
{
	return &S->cpu[cache * S->k->nr_cpus + cpu];
}

/* --- buddy --- */

static inline void buddy_insert(struct sim *S, int pfn, int order)
{
	struct area *a = &S->area[order];
	struct pfn *p = &S->pfn[pfn];

	p->free_order = order + 1;
	p->prev = 0;
	p->next = a->head;
	if (a->head)
		S->pfn[a->head - 1].prev = pfn + 1;
	a->head = pfn + 1;
	a->nr++;
}

static inline void buddy_remove(struct sim *S, int pfn, int order)
{
	struct area *a = &S->area[order];
	struct pfn *p = &S->pfn[pfn];

	if (p->prev)
		S->pfn[p->prev - 1].next = p->next;
	else
		a->head = p->next;
	if (p->next)
		S->pfn[p->next - 1].prev = p->prev;
	p->free_order = 0;
	a->nr--;
}

static int alloc_pages(struct sim *S, int order)
{
	for (int high = order; high < NR_ORDERS; high++) {
		struct area *a = &S->area[high];
		int pfn = a->head - 1;

		if (!a->nr)
			continue;
		if (pfn >= 0) {
			buddy_remove(S, pfn, high);
		} else {
			pfn = a->fresh;
			a->fresh += 1 << high;
			a->nr--;
		}
		count(S, PAGE_ALLOC);
		S->path[PAGE_SPLIT].count += high - order;
		while (high > order) {
			high--;
			buddy_insert(S, pfn + (1 << high), high);
		}
		return pfn;
	}
	return -1;
}

static void free_pages(struct sim *S, int pfn, int order)
{
	count(S, PAGE_FREE);
	for (; order < NR_ORDERS - 1; order++) {
		int buddy = pfn ^ (1 << order);

		if (buddy >= S->nr_pfns || S->pfn[buddy].free_order != order + 1)
			break;
		buddy_remove(S, buddy, order);
		pfn &= buddy;
		count(S, PAGE_MERGE);
	}
	buddy_insert(S, pfn, order);
}

/* --- lines that several CPUs write: counters, list_locks --- */

#define HELD_NS 1000

#define fetch_line(S, line) do {						\
	(line)->near++; /* one node */						\
	count(S, LINE_NEAR);							\
} while (0)

#define write_line(S, line, lock) do {						\
	if ((line)->writer != (S)->k->cpu + 1) {				\
		if ((line)->writer) {						\
			fetch_line(S, line);					\
			if ((lock) && (S)->k->now - (line)->written < HELD_NS)	\
				count(S, LOCK_WAIT);				\
		}								\
		(line)->writer = (S)->k->cpu + 1;				\
	} else if ((line)->reader) {						\
		fetch_line(S, line);						\
	}									\
	(line)->reader = 0;							\
	(line)->written = (S)->k->now;						\
	(line)->writes++;							\
} while (0)

#define read_line(S, line) do {							\
	(line)->reads++;							\
	if (!(line)->reader && (line)->writer && (line)->writer != (S)->k->cpu + 1) { \
		fetch_line(S, line);						\
		(line)->reader = (S)->k->cpu + 1;				\
	}									\
} while (0)

/* --- counters and the page stock --- */

/* 0, or the level that was over its limit */
static int counter_charge(struct sim *S, int which, int memcg, int64_t nr)
{
	const int path = S->k->counter_locked ? COUNTER_CHARGE_LOCKED : COUNTER_CHARGE_ATOMIC;

	for (int g = memcg; g; g = S->memcg[g].parent) {
		struct counter *c = &S->counter[g * 2 + which];

		count(S, path);
		write_line(S, c, S->k->counter_locked);
		if (unlikely(c->usage + nr > c->limit)) {
			c->failcnt++;
			count(S, COUNTER_FAIL);
			for (int undo = memcg; undo != g; undo = S->memcg[undo].parent) {
				S->counter[undo * 2 + which].usage -= nr;
				write_line(S, &S->counter[undo * 2 + which],
					   S->k->counter_locked);
				count(S, path + COUNTER_UNCHARGE_ATOMIC - COUNTER_CHARGE_ATOMIC);
			}
			return g;
		}
		c->usage += nr;
		if (c->usage > c->watermark)
			c->watermark = c->usage;
	}
	return 0;
}

static void counter_uncharge(struct sim *S, int which, int memcg, int64_t nr)
{
	const int path = S->k->counter_locked ? COUNTER_UNCHARGE_LOCKED : COUNTER_UNCHARGE_ATOMIC;

	if (!nr)
		return;
	for (int g = memcg; g; g = S->memcg[g].parent) {
		S->counter[g * 2 + which].usage -= nr;
		write_line(S, &S->counter[g * 2 + which], S->k->counter_locked);
		count(S, path);
	}
}

#if STRATEGY == LINUX_6_18

static void counter_force(struct sim *S, int which, int memcg, int64_t nr)
{
	for (int g = memcg; g; g = S->memcg[g].parent) {
		struct counter *c = &S->counter[g * 2 + which];

		count(S, COUNTER_CHARGE_ATOMIC);
		write_line(S, c, 0);
		c->usage += nr;
		if (c->usage > c->watermark)
			c->watermark = c->usage;
	}
}

static inline uint32_t rotate(uint32_t x, int n)
{
	return x << n | x >> (32 - n);
}

/* xoshiro128++ */
static uint32_t next_u32(struct kernel *k)
{
	uint32_t s0 = k->rng0, s1 = k->rng1, s2 = k->rng2, s3 = k->rng3;
	uint32_t result = rotate(s0 + s3, 7) + s0, t = s1 << 9;

	s2 ^= s0;
	s3 ^= s1;
	k->rng1 = s1 ^ s2;
	k->rng0 = s0 ^ s3;
	k->rng2 = s2 ^ t;
	k->rng3 = rotate(s3, 11);
	return result;
}

static void drain_slot(struct sim *S, struct stock *slot)
{
	if (!slot->memcg)
		return;
	if (slot->nr)
		counter_uncharge(S, COUNTER_MEMORY, slot->memcg, slot->nr);
	count(S, STOCK_DRAIN);
	slot->memcg = 0;
	slot->nr = 0;
}

static bool consume_stock(struct sim *S, int cpu, int memcg, int nr)
{
	const int slots = S->k->stock_slots;
	struct stock *slot = &S->stock[cpu * slots];

	for (int i = 0; i < slots; i++, slot++) {
		if (slot->memcg != memcg)
			continue;
		if (slot->nr < nr)
			return false;
		slot->nr -= nr;
		count(S, STOCK_HIT);
		return true;
	}
	return false;
}

static void refill_stock(struct sim *S, int cpu, int memcg, int nr)
{
	const int slots = S->k->stock_slots, batch = S->k->stock_batch;
	struct stock *base = &S->stock[cpu * slots], *empty = NULL;

	if (!slots || nr > batch) {
		counter_uncharge(S, COUNTER_MEMORY, memcg, nr);
		return;
	}
	count(S, STOCK_REFILL);
	for (int i = 0; i < slots; i++) {
		if (base[i].memcg == memcg) {
			base[i].nr += nr;
			if (base[i].nr > batch)
				drain_slot(S, &base[i]);
			return;
		}
		if (!base[i].memcg && !empty)
			empty = &base[i];
	}
	if (!empty) {
		empty = &base[slots > 1 ? next_u32(S->k) % slots : 0];
		drain_slot(S, empty);
	}
	empty->memcg = memcg;
	empty->nr = nr;
}

static bool try_charge(struct sim *S, int cpu, int memcg, int nr, uint32_t gfp)
{
	const int batch = S->k->stock_batch;

	if (consume_stock(S, cpu, memcg, nr))
		return true;
	count(S, STOCK_MISS);
	if (S->k->stock_slots && nr < batch && !counter_charge(S, COUNTER_MEMORY, memcg, batch)) {
		refill_stock(S, cpu, memcg, batch - nr);
		return true;
	}
	if (!counter_charge(S, COUNTER_MEMORY, memcg, nr))
		return true;
	if (!(gfp & S->k->forces))
		return false;
	counter_force(S, COUNTER_MEMORY, memcg, nr);
	return true;
}

#endif

/* --- the kernel's own operations, run after the event that caused them --- */

static inline void queue_internal(struct sim *S, int op, int cpu, int cache, int obj)
{
	struct internal *item = &S->internal[S->k->internal_tail++ & S->internal_mask];

	item->op = op;
	item->cpu = cpu;
	item->cache = cache;
	item->obj = obj;
}

static inline int holder(struct sim *S, int memcg)
{
	while (S->memcg[memcg].objcg_memcg != memcg)
		memcg = S->memcg[memcg].objcg_memcg;
	return memcg;
}

/* --- strategies --- */

#if STRATEGY == COSTA_2012

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

#else

static inline void strategy_cg_create(struct sim *S, int memcg)
{
#if STRATEGY == LINUX_6_18
	if (memcg > 1)
		S->mode->on = 1;
#else
	(void)S, (void)memcg;
#endif
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

#endif

#if STRATEGY == NONE

static inline bool strategy_slab_new(struct sim *S, int cpu, int cache, int order, int slab)
{
	(void)S, (void)cpu, (void)cache, (void)order, (void)slab;
	return true;
}

static inline int strategy_post_alloc(struct sim *S, int cpu, int memcg, int cache, uint32_t gfp,
				      int slab, int billed)
{
	(void)S, (void)cpu, (void)memcg, (void)cache, (void)gfp, (void)slab;
	return billed;
}

static inline void strategy_obj_free(struct sim *S, int cpu, int cache, int billed, int slab)
{
	(void)S, (void)cpu, (void)cache, (void)billed, (void)slab;
}

#endif

#if STRATEGY == LINUX_6_18

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
		if (S->left[objcg].bytes)
			write_line(S, &S->left[objcg], 0);
		else
			read_line(S, &S->left[objcg]);
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
	}
}

#endif

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

/* --- objects, and who pays for them --- */

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

/* --- events --- */

static void settle(struct sim *S, int cpu)
{
	struct kernel *k = S->k;

	for (int slab = k->release, next; slab; slab = next) {
		struct slab *s = &S->slab[slab];
		const struct cache *c = &S->cache[s->cache];

		next = s->next;
		strategy_slab_gone(S, s->cache, s->order, slab);
		if (s->vector) {
			const bool full = s->order == c->order;

			s->vector = 0;
			k->metadata -= full ? c->vector_bytes : c->min_vector_bytes;
			if (full ? c->vector_cache : c->min_vector_cache)
				queue_internal(S, FREE, cpu, 0, k->nr_objects + slab);
		}
		k->nr_slab_pages -= 1 << s->order;
		k->nr_free_pages += 1 << s->order;
		count(S, SLAB_GONE);
		free_pages(S, s->pfn, s->order);
		s->next = k->free_slab;
		s->cache = 0;
		k->free_slab = slab;
	}
	k->release = 0;
}

static rarely void log_failure(struct sim *S, const struct event *e, int cause)
{
	struct kernel *k = S->k;
	struct fail *f = &S->fail[k->nr_fail_rows];

	k->nr_failed++;
	k->nr_failed_pages += cause == FAIL_PAGES;
	k->nr_failed_limit += cause == FAIL_LIMIT;
	if (k->nr_fail_rows >= S->nr_fails_max)
		return;
	f->t = k->now;
	f->op = e->op;
	f->memcg = e->memcg;
	f->cache = e->cache;
	f->gfp = e->gfp;
	f->arg = e->arg;
	f->cause = cause;
	k->nr_fail_rows++;
}

/* What events left to do: slabs to release, and operations of the kernel's own. */
static void settle_all(struct sim *S, int cpu)
{
	struct kernel *k = S->k;

	while (k->release || k->internal_head != k->internal_tail) {
		struct internal item;

		settle(S, cpu);
		if (k->internal_head == k->internal_tail)
			break;
		item = S->internal[k->internal_head++ & S->internal_mask];
		k->nr_internal++;
		cpu = item.cpu;
		k->cpu = cpu;
		if (item.op == FREE) {
			if (S->obj[item.obj].slab > 0)
				free_object(S, cpu, item.obj);
		} else if (S->obj[item.obj].slab == 0) {
			alloc_object(S, cpu, 0, item.cache, 0, 0, item.obj);
		}
	}
}

/* End the grace periods that are over by t. */
static rarely void run_timers(struct sim *S, int64_t t, int cpu)
{
	struct kernel *k = S->k;

	while (k->next_due <= t) {
		const struct rcu *wait = &S->rcu[k->rcu_head++ & S->rcu_mask];

		k->now = k->next_due;
		k->cpu = wait->cpu;
		k->release = wait->slab;
		S->slab[wait->slab].next = 0;
		settle(S, wait->cpu);
		k->next_due = k->next_sample;
		if (k->rcu_head != k->rcu_tail && S->rcu[k->rcu_head & S->rcu_mask].due < k->next_due)
			k->next_due = S->rcu[k->rcu_head & S->rcu_mask].due;
		settle_all(S, cpu);
	}
}

static inline bool exists(struct sim *S, int memcg)
{
	const int state = S->memcg[memcg].state;

	return memcg <= 1 || state == ONLINE || state == OFFLINE;
}

static rarely void create_group(struct sim *S, const struct event *e)
{
	struct memcg *g = &S->memcg[e->memcg];

	g->parent = e->arg;
	g->state = ONLINE;
	g->objcg_memcg = e->memcg;
	g->has_id = 1;
	S->k->nr_ids++;
	count(S, GROUP_MADE);
	strategy_cg_create(S, e->memcg);
}

void run(struct sim *S, const struct event *events, int64_t start, int64_t stop)
{
	struct kernel *k = S->k;
	int cpu = 0;

	for (int64_t i = start; i < stop; i++) {
		const struct event *e = &events[i];

		if (unlikely(e->t >= k->next_due))
			run_timers(S, e->t, cpu);
#ifdef LOOK_AHEAD
		if (i + OBJECT_AHEAD < stop) {
			int slab = S->obj[events[i + SLAB_AHEAD].obj].slab;

			__builtin_prefetch(&S->obj[events[i + OBJECT_AHEAD].obj], 1, 3);
			__builtin_prefetch(&S->slab[slab > 0 ? slab : 0], 1, 3);
		}
#endif
		k->now = e->t;
		cpu = e->cpu;
		k->cpu = cpu;
		k->task = e->task;
		switch (e->op) {
		case FREE:
			if (S->obj[e->obj].slab > 0) {
				free_object(S, cpu, e->obj);
				k->nr_frees++;
			} else {
				k->nr_skipped++;
			}
			break;
		case ALLOC:
			if (S->obj[e->obj].slab == 0) {
				int failed = FAIL_NO_GROUP;

				if (exists(S, e->memcg))
					failed = alloc_object(S, cpu, e->memcg, e->cache, e->gfp,
							      e->arg, e->obj);
				k->nr_allocs++;
				if (unlikely(failed))
					log_failure(S, e, failed);
			} else {
				k->nr_skipped++;
			}
			break;
		case CG_CREATE:
			create_group(S, e);
			break;
		default:
			abort(); /* the stream has nothing else */
		}
		k->nr_events++;
		if (unlikely(k->release || k->internal_head != k->internal_tail))
			settle_all(S, cpu);
	}
}
