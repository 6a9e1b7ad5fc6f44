/* Lines that several CPUs write (counters, list_locks), and the counters of groups. */

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
	if (!(line)->reader && (line)->writer && (line)->writer != (S)->k->cpu + 1) { \
		fetch_line(S, line);						\
		(line)->reader = (S)->k->cpu + 1;				\
	}									\
} while (0)

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
