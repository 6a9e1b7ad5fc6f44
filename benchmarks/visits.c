/*
 * What asking one superblock's shrinker for one group costs, by how many there are of both.
 *
 *	gcc -O2 -o visits benchmarks/visits.c && ./visits [-s] [-p] [GROUPS MOUNTS]...
 *
 * With -mindirect-branch=thunk-inline the two calls through pointers are retpolines, as in kernels
 * from 4.15 on: the CPU does not run ahead past them.  -s scatters the list heads over all of their
 * memory, -p has pages of 4 KiB.  With 100 groups and 60,000 mounts nothing that a walk touches is
 * in a cache of 32 MiB when the next one comes.
 *
 * The memory accesses of an idle shrink_slab of Linux 4.16, in its order, on records of its sizes:
 * for each group, for each shrinker on the list, super_cache_count: the shrinker (in a superblock of
 * 2 KiB), s_op, the file system's count behind s_fs_info (tmpfs), and for dentries and inodes
 * list_lru_count_one: the node's lock taken and released, its array of groups, the group's list head
 * (32 bytes of its own), whose length is read.  (mm/vmscan.c:shrink_slab, do_shrink_slab,
 * fs/super.c:super_cache_count, mm/list_lru.c:__list_lru_count_one, mm/shmem.c:
 * shmem_unused_huge_count.)
 *
 * Prints ns of CPU a visit, the median of seven walks over all.
 */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

struct list_lru_one { void *next, *prev; long nr_items; long pad; };	/* kmalloc-32 */
struct list_lru_node {
	atomic_int lock;
	struct list_lru_one root;
	struct list_lru_one **memcg_lrus;
} __attribute__((aligned(64)));
struct sb_info { long shrinklist_len; char pad[184]; };
struct super_block;
struct shrinker { long (*count)(struct super_block *, int); struct super_block *next; long flags; };
struct super_block {
	const struct super_operations { long (*nr_cached)(struct super_block *); } *s_op;
	char a[512];
	struct sb_info *s_fs_info;
	char b[256];
	struct shrinker s_shrink;
	char c[128];
	struct list_lru_node *lru[2];
} __attribute__((aligned(2048)));

static int scattered, advice = MADV_HUGEPAGE;	/* as the kernel's own mapping */

static long shmem_count(struct super_block *sb) { return sb->s_fs_info->shrinklist_len; }
static const struct super_operations shmem_ops = { shmem_count };

static long lru_count(struct list_lru_node *n, int group)
{
	int unlocked = 0;
	long nr;

	while (!atomic_compare_exchange_weak(&n->lock, &unlocked, 1))
		unlocked = 0;
	nr = n->memcg_lrus[group]->nr_items;
	atomic_store_explicit(&n->lock, 0, memory_order_release);
	return nr;
}

static long super_cache_count(struct super_block *sb, int group)
{
	long total = sb->s_op ? sb->s_op->nr_cached(sb) : 0;

	total += lru_count(sb->lru[0], group);
	return total + lru_count(sb->lru[1], group);
}

static void *memory(size_t bytes)
{
	bytes = (bytes + (2 << 20) - 1) & ~((size_t)(2 << 20) - 1);
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		perror("memory");
		exit(1);
	}
	madvise(p, bytes, advice);
	return p;
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* the n-th of all places, each once: 2654435761 is prime */
static size_t place(size_t n, size_t all)
{
	return scattered ? n * 2654435761 % all : n;
}

static double walk(int groups, int mounts)
{
	struct super_block *sb = memory(sizeof(*sb) * mounts);
	struct sb_info *info = memory(sizeof(*info) * mounts);
	struct list_lru_node *node = memory(sizeof(*node) * 2 * mounts);
	struct list_lru_one **array = memory(sizeof(*array) * 2 * mounts * groups);
	struct list_lru_one *one = memory(sizeof(*one) * 2 * mounts * groups);
	size_t all = 2 * (size_t)mounts * groups;
	int *order = memory(sizeof(*order) * mounts);
	double ns[7];
	volatile long sum = 0;

	for (int i = 0; i < mounts; i++)
		order[i] = i;
	for (int i = mounts - 1; i > 0; i--) {	/* what was made in turn does not lie in turn */
		int other = rand() % (i + 1), was = order[i];

		order[i] = order[other];
		order[other] = was;
	}
	for (int nr = 0; nr < mounts; nr++) {
		int i = order[nr];

		sb[i].s_op = &shmem_ops;
		sb[i].s_fs_info = &info[i];
		sb[i].s_shrink.count = super_cache_count;
		sb[i].s_shrink.next = nr + 1 < mounts ? &sb[order[nr + 1]] : NULL;
		for (int kind = 0; kind < 2; kind++) {
			size_t at = 2 * (size_t)i + kind;

			sb[i].lru[kind] = &node[at];
			node[at].memcg_lrus = array + at * groups;
			for (int g = 0; g < groups; g++)
				array[at * groups + g] = &one[place(at * groups + g, all)];
		}
	}
	for (int round = 0; round < 7; round++) {
		struct timespec from, to;
		long times = 1 + 200000L / ((long)groups * mounts);

		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
		for (long time = 0; time < times; time++)
			for (int g = 0; g < groups; g++)
				for (struct super_block *s = &sb[order[0]]; s; s = s->s_shrink.next)
					if (!s->s_shrink.flags)
						sum += s->s_shrink.count(s, g);
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
		ns[round] = ((to.tv_sec - from.tv_sec) * 1e9 + to.tv_nsec - from.tv_nsec)
			/ times / ((double)groups * mounts);
	}
	qsort(ns, 7, sizeof(*ns), by_size);
	munmap(order, sizeof(*order) * mounts);
	munmap(sb, sizeof(*sb) * mounts);
	munmap(info, sizeof(*info) * mounts);
	munmap(node, sizeof(*node) * 2 * mounts);
	munmap(array, sizeof(*array) * 2 * mounts * groups);
	munmap(one, sizeof(*one) * 2 * mounts * groups);
	return ns[3];
}

int main(int argc, char **argv)
{
	static char *usual[] = { "", "10", "10", "100", "100", "1000", "1000", "2000", "2000", "4001", "4001" };
	char **given;
	int nr;

	for (; argc > 1 && argv[1][0] == '-'; argc--, argv++) {
		scattered |= argv[1][1] == 's';
		if (argv[1][1] == 'p')
			advice = MADV_NOHUGEPAGE;
	}
	given = argc > 1 ? argv : usual;
	nr = argc > 1 ? argc : 11;
	printf("%8s%8s%12s\n", "groups", "mounts", "ns a visit");
	for (int i = 1; i + 1 < nr; i += 2)
		printf("%8s%8s%12.1f\n", given[i], given[i + 1], walk(atoi(given[i]), atoi(given[i + 1])));
	return 0;
}
