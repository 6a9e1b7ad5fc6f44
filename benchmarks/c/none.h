/* No accounting: hooks that do nothing. */

static inline void strategy_cg_create(struct sim *S, int memcg)
{
	(void)S, (void)memcg;
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
