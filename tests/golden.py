"""Golden values that the core and the reference model must both meet."""

CPUS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
# size: order/objects of its slabs by number of CPUs; read off a live 6.18 and the sources
ORDERS = {
    64: "0/64 0/64 0/64 0/64 0/64 0/64 0/64 0/64 0/64",
    104: "0/39 0/39 0/39 0/39 0/39 0/39 0/39 0/39 1/78",
    192: "0/21 0/21 0/21 0/21 1/42 1/42 1/42 1/42 1/42",
    256: "0/16 0/16 0/16 1/32 1/32 1/32 1/32 2/64 2/64",
    320: "0/12 0/12 1/25 1/25 1/25 2/51 2/51 2/51 2/51",
    512: "0/8 1/16 1/16 2/32 2/32 2/32 2/32 3/64 3/64",
    576: "1/14 1/14 2/28 2/28 2/28 2/28 3/56 3/56 3/56",
    624: "1/13 1/13 2/26 2/26 2/26 3/52 3/52 3/52 3/52",
    752: "2/21 2/21 2/21 2/21 3/43 3/43 3/43 3/43 3/43",
    832: "2/19 2/19 2/19 3/39 3/39 3/39 3/39 3/39 3/39",
    1024: "1/8 2/16 2/16 3/32 3/32 3/32 3/32 3/32 3/32",
    1128: "2/14 2/14 3/29 3/29 3/29 3/29 3/29 3/29 3/29",
    1344: "2/12 2/12 3/24 3/24 3/24 3/24 3/24 3/24 3/24",
    2048: "2/8 3/16 3/16 3/16 3/16 3/16 3/16 3/16 3/16",
    2368: "3/13 3/13 3/13 3/13 3/13 3/13 3/13 3/13 3/13",
    4096: "3/8 3/8 3/8 3/8 3/8 3/8 3/8 3/8 3/8",
    5888: "3/5 3/5 3/5 3/5 3/5 3/5 3/5 3/5 3/5",
}

# SLAB: size, RECLAIM_ACCOUNT, alignment; objects of a slab and its order as published slabinfo of
# x86_64 has them, and whether its management is outside
SLAB_LAYOUTS = (
    (32, False, 32, 112, 0, False),
    (64, False, 64, 59, 0, False),
    (128, False, 64, 30, 0, False),
    (192, False, 64, 20, 0, False),
    (192, True, 8, 20, 0, False),  # dentry
    (256, False, 64, 15, 0, False),
    (512, False, 64, 8, 0, True),
    (560, True, 8, 7, 0, False),  # radix_tree_node: its management fits into what is left over
    (592, True, 8, 6, 0, False),  # inode_cache
    (832, True, 64, 4, 0, False),
    (888, True, 8, 4, 0, False),  # as ext4's inodes
    (1024, False, 64, 4, 0, True),
    (1128, True, 8, 3, 0, False),
    (1152, False, 64, 7, 1, False),
    (1728, False, 64, 4, 1, False),  # TCP
    (2048, False, 64, 2, 0, True),
    (2112, False, 64, 3, 1, False),  # sighand_cache
    (4096, False, 64, 1, 0, True),
    (5952, False, 64, 1, 1, False),  # task_struct
)
# SLAB since 3.13, 3.15 and 4.6, worked out by hand from mm/slab.c of 3.13, 4.1 and 4.9
# (cache_estimate, calculate_slab_order, set_objfreelist_slab_cache, set_off_slab_cache), pages of
# 4 KiB: size, RECLAIM_ACCOUNT, alignment, whether a free object may be written (4.6); objects of a
# slab, its order, bytes of management outside it
SLAB_ERA_LAYOUTS = {
    "3.13": (
        (32, False, 32, True, 113, 0, 0),  # 4096 / 36; 113 indices of 4 bytes take 480
        (64, False, 64, True, 60, 0, 0),  # 60 * 64 + 256 = 4096
        (128, False, 64, True, 31, 0, 0),
        (192, True, 8, True, 20, 0, 0),
        (512, False, 64, True, 8, 0, 32),  # an eighth of a page: outside
        (1024, False, 64, True, 4, 0, 16),
    ),
    "3.15": (
        (32, False, 32, True, 124, 0, 0),  # 124 * 32 + 128 = 4096
        (64, False, 64, True, 63, 0, 0),
        (128, False, 64, True, 32, 0, 32),  # a 32nd of a page: outside
        (192, True, 8, True, 21, 0, 0),  # 21 * 192 leave 64 bytes, the indices take 24 of them
        (192, False, 64, True, 21, 0, 0),  # 64 of them
        (256, False, 64, True, 16, 0, 16),
        (1024, False, 64, True, 4, 0, 4),
        (2112, False, 64, True, 3, 1, 0),  # one in a page would waste 48 %
    ),
    "4.6": (
        (32, False, 32, True, 124, 0, 0),  # 128 indices are more than an object of 32 bytes
        (64, False, 64, True, 64, 0, 0),  # 64 indices in a free object of 64
        (64, False, 64, False, 63, 0, 0),  # outside they would take kmalloc-64
        (96, False, 8, False, 42, 0, 0),  # kmalloc-64 is more than half an object
        (128, False, 64, False, 32, 0, 32),
        (192, True, 8, True, 21, 0, 0),
        (256, False, 64, True, 16, 0, 0),
        (256, False, 64, False, 16, 0, 16),
        (1024, False, 64, False, 4, 0, 4),
        (1128, True, 8, False, 3, 0, 0),
        (2112, False, 64, False, 3, 1, 0),  # what three leave holds their indices
    ),
}
# size: limit, batchcount, sharedfactor
SLAB_TUNABLES = {
    192: (120, 60, 8), 256: (120, 60, 8), 512: (54, 27, 8), 1024: (54, 27, 8), 2112: (24, 12, 8),
    4096: (24, 12, 8), 5952: (8, 4, 0), 131072: (8, 4, 0), 131080: (1, 1, 0),
}  # fmt: skip
