/* Lines that several CPUs write (counters, list_locks), and the counters of groups. */

#define HELD_NS 1000

#define fetch_line(S, line) do {						\
	(line)->near++; /* one node */						\
	count(S, LINE_NEAR);							\
} while (0)

#define visits(S, l)								\
	((S)->visit[(S)->k->cpu].line == (l)->id &&				\
	 (S)->visit[(S)->k->cpu].when == (S)->k->now)

static inline bool begin_visit(struct sim *S, int32_t *id)
{
	struct visit *at = &S->visit[S->k->cpu];

	if (!*id)
		*id = ++S->k->nr_lines;
	at->when = S->k->now;
	if (at->line == *id) {
		at->had = at->took;
		at->took = 0;
		return true;
	}
	at->line = *id;
	at->had = at->took = 0;
	return false;
}

#define write_line(S, l, lock) do {						\
	if (!visits(S, l)) {							\
		begin_visit(S, &(l)->id);					\
		(l)->opens++;							\
	}									\
	if (!(S)->visit[(S)->k->cpu].took) {					\
		(S)->visit[(S)->k->cpu].took = 1;				\
		(l)->takes++;							\
		(l)->takes_on += (S)->visit[(S)->k->cpu].had;			\
	}									\
	if ((l)->writer != (S)->k->cpu + 1) {					\
		if ((l)->writer) {						\
			fetch_line(S, l);					\
			if ((lock) && (S)->k->now - (l)->written < HELD_NS)	\
				count(S, LOCK_WAIT);				\
		}								\
		(l)->writer = (S)->k->cpu + 1;					\
	} else if ((l)->reader) {						\
		fetch_line(S, l);						\
	}									\
	(l)->reader = 0;							\
	(l)->written = (S)->k->now;						\
	(l)->writes++;								\
} while (0)

#define read_line(S, l) do {							\
	if (!visits(S, l)) {							\
		(l)->looks++;							\
		if (begin_visit(S, &(l)->id))					\
			(l)->looks_on++;					\
	}									\
	if (!(l)->reader && (l)->writer && (l)->writer != (S)->k->cpu + 1) {	\
		fetch_line(S, l);						\
		(l)->reader = (S)->k->cpu + 1;					\
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
