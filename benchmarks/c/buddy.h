/* The page allocator: frames by order on lists, split and merged. */

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
