/* What goes over the limit, and the stock of pages that each CPU has charged ahead. */

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
