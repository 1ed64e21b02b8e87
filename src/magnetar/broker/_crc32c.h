/* CRC32-C (Castagnoli), for compiled kernels: the processor's instruction where there is one.

   magnetar_crc32c(crc, data, size)   crc of what came before (0 at first); like zlib's crc32

   x86-64 with SSE 4.2: the instruction takes 8 bytes and its result 3 cycles, so three stretches
   of a block are worked on side by side and joined afterwards. Moving a checksum on over n zero
   bytes is linear: four look-ups in a table made for that n. ARMv8 with CRC: 8 bytes at a time.
   Anything else: Sarwate's table, eight bytes at a time. Which one is decided once, by
   magnetar_crc32c_init, which each kernel calls when it is loaded.
   Sources: RFC 3720 (the polynomial), Mark Adler's crc32c.c (three stretches). */

#ifndef MAGNETAR_CRC32C_H
#define MAGNETAR_CRC32C_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define MAGNETAR_CRC32C_X86 1
#include <nmmintrin.h>
#elif defined(__aarch64__) && (defined(__GNUC__) || defined(__clang__))
#define MAGNETAR_CRC32C_ARM 1
#if defined(__clang__)
#define MAGNETAR_CRC32C_8 __builtin_arm_crc32cd
#define MAGNETAR_CRC32C_1 __builtin_arm_crc32cb
#define MAGNETAR_CRC32C_TARGET "crc"
#else
#define MAGNETAR_CRC32C_8 __builtin_aarch64_crc32cx
#define MAGNETAR_CRC32C_1 __builtin_aarch64_crc32cb
#define MAGNETAR_CRC32C_TARGET "+crc"
#endif
#if defined(__linux__)
#include <sys/auxv.h>
#ifndef HWCAP_CRC32
#define HWCAP_CRC32 (1 << 7)
#endif
#endif
#endif

#define MAGNETAR_CRC32C_POLYNOMIAL 0x82F63B78u /* bits reversed */
#define MAGNETAR_CRC32C_SHORT 128
#define MAGNETAR_CRC32C_LONG 2048

static uint32_t magnetar_crc32c_table[8][256];

typedef uint32_t (*magnetar_crc32c_function)(uint32_t, const uint8_t *, size_t);

static uint32_t magnetar_crc32c_by_table(uint32_t crc, const uint8_t *data, size_t size)
{
    uint64_t word;
    crc = ~crc;
    while (size >= 8) {
        word = crc ^ ((uint64_t)data[0] | (uint64_t)data[1] << 8 | (uint64_t)data[2] << 16 |
                      (uint64_t)data[3] << 24 | (uint64_t)data[4] << 32 | (uint64_t)data[5] << 40 |
                      (uint64_t)data[6] << 48 | (uint64_t)data[7] << 56);
        crc = magnetar_crc32c_table[7][word & 0xFF] ^ magnetar_crc32c_table[6][word >> 8 & 0xFF] ^
              magnetar_crc32c_table[5][word >> 16 & 0xFF] ^
              magnetar_crc32c_table[4][word >> 24 & 0xFF] ^
              magnetar_crc32c_table[3][word >> 32 & 0xFF] ^
              magnetar_crc32c_table[2][word >> 40 & 0xFF] ^
              magnetar_crc32c_table[1][word >> 48 & 0xFF] ^ magnetar_crc32c_table[0][word >> 56];
        data += 8;
        size -= 8;
    }
    while (size--)
        crc = magnetar_crc32c_table[0][(crc ^ *data++) & 0xFF] ^ crc >> 8;
    return ~crc;
}

#if defined(MAGNETAR_CRC32C_X86)
static uint32_t magnetar_crc32c_over_short[4][256];
static uint32_t magnetar_crc32c_over_long[4][256];

static inline uint64_t magnetar_crc32c_moved(uint32_t over[4][256], uint64_t crc)
{
    return over[0][crc & 0xFF] ^ over[1][crc >> 8 & 0xFF] ^ over[2][crc >> 16 & 0xFF] ^
           over[3][crc >> 24 & 0xFF];
}

static inline uint64_t magnetar_load64(const uint8_t *data)
{
    uint64_t word;
    memcpy(&word, data, 8);
    return word;
}

#define MAGNETAR_CRC32C_BLOCKS(STRETCH, OVER)                                       \
    while (size >= 3 * (STRETCH)) {                                                 \
        uint64_t second = 0, third = 0;                                             \
        const uint8_t *end = data + (STRETCH);                                      \
        do {                                                                        \
            first = _mm_crc32_u64(first, magnetar_load64(data));                    \
            second = _mm_crc32_u64(second, magnetar_load64(data + (STRETCH)));      \
            third = _mm_crc32_u64(third, magnetar_load64(data + 2 * (STRETCH)));    \
            data += 8;                                                              \
        } while (data < end);                                                       \
        first = magnetar_crc32c_moved(OVER, first) ^ second;                        \
        first = magnetar_crc32c_moved(OVER, first) ^ third;                         \
        data += 2 * (STRETCH);                                                      \
        size -= 3 * (STRETCH);                                                      \
    }

__attribute__((target("sse4.2"))) static uint32_t
magnetar_crc32c_by_instruction(uint32_t crc, const uint8_t *data, size_t size)
{
    uint64_t first = (uint32_t)~crc;
    MAGNETAR_CRC32C_BLOCKS(MAGNETAR_CRC32C_LONG, magnetar_crc32c_over_long)
    MAGNETAR_CRC32C_BLOCKS(MAGNETAR_CRC32C_SHORT, magnetar_crc32c_over_short)
    while (size >= 8) {
        first = _mm_crc32_u64(first, magnetar_load64(data));
        data += 8;
        size -= 8;
    }
    while (size--)
        first = _mm_crc32_u8((uint32_t)first, *data++);
    return ~(uint32_t)first;
}
#elif defined(MAGNETAR_CRC32C_ARM)
__attribute__((target(MAGNETAR_CRC32C_TARGET))) static uint32_t
magnetar_crc32c_by_instruction(uint32_t crc, const uint8_t *data, size_t size)
{
    uint64_t word;
    crc = ~crc;
    while (size >= 8) {
        memcpy(&word, data, 8);
        crc = MAGNETAR_CRC32C_8(crc, word);
        data += 8;
        size -= 8;
    }
    while (size--)
        crc = MAGNETAR_CRC32C_1(crc, *data++);
    return ~crc;
}
#endif

static magnetar_crc32c_function magnetar_crc32c_chosen = magnetar_crc32c_by_table;

static int magnetar_crc32c_has_instruction(void)
{
#if defined(MAGNETAR_CRC32C_X86)
    __builtin_cpu_init();
    return __builtin_cpu_supports("sse4.2") != 0;
#elif defined(MAGNETAR_CRC32C_ARM) && defined(__linux__)
    return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0;
#elif defined(MAGNETAR_CRC32C_ARM) && defined(__APPLE__)
    return 1; /* every one of theirs has it */
#else
    return 0;
#endif
}

#if defined(MAGNETAR_CRC32C_X86)
/* What becomes of each byte of a checksum when `zeros` zero bytes follow. */
static void magnetar_crc32c_make_over(uint32_t over[4][256], size_t zeros)
{
    uint32_t moved_bit[32];
    for (int bit = 0; bit < 32; bit++) {
        uint32_t crc = (uint32_t)1 << bit;
        for (size_t i = 0; i < zeros; i++)
            crc = magnetar_crc32c_table[0][crc & 0xFF] ^ crc >> 8;
        moved_bit[bit] = crc;
    }
    for (int place = 0; place < 4; place++)
        for (int value = 0; value < 256; value++) {
            uint32_t crc = 0;
            for (int bit = 0; bit < 8; bit++)
                if (value >> bit & 1)
                    crc ^= moved_bit[8 * place + bit];
            over[place][value] = crc;
        }
}
#endif

/* Make the tables and choose; returns 1 if the processor's instruction is used. */
static int magnetar_crc32c_init(void)
{
    for (uint32_t value = 0; value < 256; value++) {
        uint32_t crc = value;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ MAGNETAR_CRC32C_POLYNOMIAL : crc >> 1;
        magnetar_crc32c_table[0][value] = crc;
    }
    for (int value = 0; value < 256; value++)
        for (int place = 1; place < 8; place++) {
            uint32_t crc = magnetar_crc32c_table[place - 1][value];
            magnetar_crc32c_table[place][value] = magnetar_crc32c_table[0][crc & 0xFF] ^ crc >> 8;
        }
#if defined(MAGNETAR_CRC32C_X86) || defined(MAGNETAR_CRC32C_ARM)
    if (magnetar_crc32c_has_instruction()) {
#if defined(MAGNETAR_CRC32C_X86)
        magnetar_crc32c_make_over(magnetar_crc32c_over_short, MAGNETAR_CRC32C_SHORT);
        magnetar_crc32c_make_over(magnetar_crc32c_over_long, MAGNETAR_CRC32C_LONG);
#endif
        magnetar_crc32c_chosen = magnetar_crc32c_by_instruction;
        return 1;
    }
#endif
    return 0;
}

static inline uint32_t magnetar_crc32c(uint32_t crc, const void *data, size_t size)
{
    return magnetar_crc32c_chosen(crc, (const uint8_t *)data, size);
}

#endif
