/*
 * What one call of Solo5's interface costs: the same program for solo5-hvt, solo5-spt and
 * redox-hvt, built with a Solo5 source tree by `cargo xtask bench hvt --solo5 DIR`.
 *
 * Argument: the number of calls. Prints `NAME N.N` in nanoseconds for each figure, one a line.
 * WITH_BLOCK and WITH_NET choose the device, and with it the figures.
 */
#include "solo5.h"

#define BLOCK 4096
#define FRAME 64

static uint8_t buffer[BLOCK] __attribute__((aligned(BLOCK)));

static void print(const char *text)
{
    size_t length = 0;
    while (text[length] != 0)
        length++;
    solo5_console_write(text, length);
}

static void print_tenths(uint64_t value)
{
    char text[24];
    char *at = text + sizeof text - 1;
    *at = 0;
    *--at = '\n';
    *--at = (char)('0' + value % 10);
    *--at = '.';
    value /= 10;
    do {
        *--at = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    print(at);
}

/* The best of several rounds, so that another program's turn on the CPU is not in the figure. */
#define ROUNDS 10
#define MEASURE(name, count, call)                                                                 \
    do {                                                                                           \
        uint64_t best = UINT64_MAX;                                                                \
        for (int round = 0; round < ROUNDS; round++) {                                             \
            solo5_time_t start = solo5_clock_monotonic();                                          \
            for (uint64_t i = 0; i < (count) / ROUNDS; i++) {                                      \
                call;                                                                              \
            }                                                                                      \
            uint64_t passed = solo5_clock_monotonic() - start;                                     \
            if (passed < best)                                                                     \
                best = passed;                                                                     \
        }                                                                                          \
        print(name " ");                                                                           \
        print_tenths(best * 10 / ((count) / ROUNDS));                                              \
    } while (0)

static bool devices(uint64_t count)
{
    bool well = true;
#if defined(WITH_BLOCK)
    solo5_handle_t handle;
    struct solo5_block_info info;
    if (solo5_block_acquire("storage", &handle, &info) != SOLO5_R_OK || info.block_size != BLOCK)
        return false;
    uint64_t blocks = info.capacity / BLOCK;
    MEASURE("block_write", count,
            well &= solo5_block_write(handle, i % blocks * BLOCK, buffer, BLOCK) == SOLO5_R_OK);
    MEASURE("block_read", count,
            well &= solo5_block_read(handle, i % blocks * BLOCK, buffer, BLOCK) == SOLO5_R_OK);
#elif defined(WITH_NET)
    solo5_handle_t handle;
    struct solo5_net_info info;
    size_t length;
    if (solo5_net_acquire("service0", &handle, &info) != SOLO5_R_OK)
        return false;
    for (int i = 0; i < 6; i++) {
        buffer[i] = 0xff;
        buffer[6 + i] = info.mac_address[i];
    }
    buffer[12] = 0x88; /* a frame of a kind that is for experiments (IEEE 802) */
    buffer[13] = 0xb5;
    MEASURE("net_write", count, well &= solo5_net_write(handle, buffer, FRAME) == SOLO5_R_OK);
    while (solo5_net_read(handle, buffer, sizeof buffer, &length) == SOLO5_R_OK)
        ;
    MEASURE("net_read", count, (void)solo5_net_read(handle, buffer, sizeof buffer, &length));
#else
    solo5_handle_set_t ready;
    MEASURE("walltime", count, solo5_clock_wall());
    MEASURE("poll", count, solo5_yield(0, &ready));
    for (int i = 0; i < FRAME; i++)
        buffer[i] = '.';
    MEASURE("puts", count / 10, solo5_console_write((const char *)buffer, FRAME));
    print("\n");
    MEASURE("monotonic", count, solo5_clock_monotonic());
#endif
    return well;
}

int solo5_app_main(const struct solo5_start_info *start)
{
    uint64_t count = 0;
    for (const char *at = start->cmdline; *at >= '0' && *at <= '9'; at++)
        count = count * 10 + (uint64_t)(*at - '0');
    return count >= 1000 && devices(count) ? SOLO5_EXIT_SUCCESS : SOLO5_EXIT_FAILURE;
}
