// GoLU forward and backward on the CPU, for the compiler to vectorize; built once for each instruction set.
//
//     gate(x)  = alpha * exp(-beta * exp(-gamma * x))               (Gompertz)
//     GoLU(x)  = x * gate(x)
//     GoLU'(x) = gate(x) * (1 + beta * gamma * x * exp(-gamma * x))
//
// Each function computes the elements from `begin` to `end` of a job, as torch's thread pool hands them out. Inputs are
// rows of `columns` elements side by side, whose starts lie a stride of elements apart; outputs are dense. float16 and
// bfloat16 are computed in float32 and rounded once.
//
// The host clamps by `low` where the gate is 0 and by `high` where it is alpha, so that no product is 0 * inf and no
// exponential leaves its range. The comparisons are written such that NaN stays NaN.

#include <stdint.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))

typedef struct {
    const void *x, *other, *gradient;
    void *result, *other_result;
    int64_t columns, x_stride, other_stride, gradient_stride;
    double alpha, beta, gamma, low, high;
} Job;

// GoLU whose parameters are learned: `parameters` are alpha, beta, gamma, low and high of each channel, one kind after
// another, in the type of the computation. A kernel computes units: a piece, of at most `piece` elements, of a row of
// `length` elements of one channel, or, in the kernels `_last`, `length` rows of all channels. Backward leaves for each
// unit the sums, by channel, of the gradient's products with x * exp(-d), y * d and x * y * d, with
// d = beta * exp(-gamma * x): whatever the number of threads, they are of the same elements.
typedef struct {
    const void *x, *gradient, *parameters;
    void *result, *sums;
    int64_t count, channels, length, piece;
} LearnedJob;

typedef struct {
    int64_t channel, start, count;
} Piece;

EXPORT const char golu_source[] = GOLU_SOURCE;  // of which text this was built, for the host to compare

INLINE float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
INLINE uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}
INLINE double double_of(uint64_t bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
INLINE uint64_t wide_bits_of(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

// exp(t) = 2^k * exp(r) with |r| <= ln(2) / 2. Adding the magic number rounds to an integer, whose low bits are then
// those of the sum. ln(2) is taken off in two parts, of which the first has so few bits that k times it is exact. The
// polynomials are the minimax ones of relative error with first coefficients 1, by Remez' algorithm: 4.2e-10 for float,
// 6.4e-7 for the half types, 9.3e-19 for double. Where 2^k would be below the smallest normal number, k is
// one less than the smallest exponent, whose bits are those of 0: the result is 0 and hardly ever subnormal, on
// which processors are many times slower.
INLINE float scaled(float p, float shifted) { return p * float_of((bits_of(shifted) << 23) + (127u << 23)); }

INLINE float reduced(float t, float *shifted) {
    const float magic = 0x1.8p23f;
    *shifted = t * 0x1.715476p0f + magic;
    const float k = *shifted - magic;
    return (t - k * 0x1.62ep-1f) - k * 0x1.0bfbe8p-15f;
}

INLINE float float_exponential(float t) {
    float shifted, r = reduced(t, &shifted);
    float p = 1.9421231e-4f;
    p = p * r + 1.3932893e-3f;
    p = p * r + 8.3339980e-3f;
    p = p * r + 4.1666458e-2f;
    p = p * r + 1.6666665e-1f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return scaled(p, shifted);
}

INLINE float half_exponential(float t) {
    float shifted, r = reduced(t, &shifted);
    float p = 8.1063463e-3f;
    p = p * r + 4.1827900e-2f;
    p = p * r + 1.6668632e-1f;
    p = p * r + 4.9999687e-1f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return scaled(p, shifted);
}

INLINE double double_exponential(double t) {
    const double magic = 0x1.8p52, shifted = t * 0x1.71547652b82fep0 + magic, k = shifted - magic;
    const double r = (t - k * 0x1.62e42feep-1) - k * 0x1.a39ef35793c76p-33;
    double p = 2.0438977312500377e-9;
    p = p * r + 2.51020618042476197e-8;
    p = p * r + 2.75587180858603027e-7;
    p = p * r + 2.75572629112719335e-6;
    p = p * r + 2.48015857483117317e-5;
    p = p * r + 1.98412698690425902e-4;
    p = p * r + 1.38888888896266345e-3;
    p = p * r + 8.33333333332768917e-3;
    p = p * r + 4.16666666666652679e-2;
    p = p * r + 1.66666666666666700e-1;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    return p * double_of((wide_bits_of(shifted) << 52) + (1023ull << 52));
}

INLINE float float_of_float(float value) { return value; }
INLINE double double_of_double(double value) { return value; }

INLINE float float_of_bfloat16(uint16_t stored) { return float_of((uint32_t)stored << 16); }
INLINE uint16_t bfloat16_of_float(float value) {
    const uint32_t bits = bits_of(value);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;  // to nearest, ties to even
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
}

INLINE float float_of_float16(uint16_t stored) {
    // without a float32 below the normal numbers on the way, which torch.set_flush_denormal(True) takes for 0
    const uint32_t magnitude = (uint32_t)(stored & 0x7fffu) << 13;
    const uint32_t normal = magnitude + (magnitude >= 0x0f800000u ? 0x70000000u : 0x38000000u);
    const uint32_t subnormal = bits_of(float_of(magnitude + 0x38800000u) - 0x1p-14f);
    const uint32_t bits = magnitude < 0x00800000u ? subnormal : normal;
    return float_of(bits | (uint32_t)(stored & 0x8000u) << 16);
}
INLINE uint16_t float16_of_float(float value) {
    const uint32_t sign = bits_of(value) & 0x80000000u, bits = bits_of(value) ^ sign;
    const uint32_t special = bits > 0x7f800000u ? 0x7e00u : 0x7c00u;
    const uint32_t subnormal = bits_of(float_of(bits) + 0.5f) - 0x3f000000u;  // the sum rounds at float16's last place
    const uint32_t normal = (bits - 0x38000000u + 0xfffu + ((bits >> 13) & 1u)) >> 13;
    const uint32_t magnitude = bits >= 0x47800000u ? special : bits < 0x38800000u ? subnormal : normal;
    return (uint16_t)(magnitude | sign >> 16);
}

// Runs statements over stretches of rows between `begin` and `end`, of at most BLOCK elements, with their `count`, how
// many are `left` of the row, and each tensor moved to the stretch. AHEAD asks for an input's next stretch: a processor
// computes too few elements at a time to do so early enough, which costs a third of a forward pass over large tensors.
// A backward pass gains nothing by it.
#define BLOCK 512
#define OVER_ROWS(...)                                                                                                 \
    for (int64_t row = begin / job->columns, column = begin % job->columns; begin < end;) {                            \
        const int64_t of_row = job->columns - column, left = end - begin < of_row ? end - begin : of_row;              \
        const int64_t count = left < BLOCK ? left : BLOCK;                                                             \
        __VA_ARGS__                                                                                                    \
        begin += count;                                                                                                \
        column += count;                                                                                               \
        if (column == job->columns) {                                                                                  \
            column = 0;                                                                                                \
            ++row;                                                                                                     \
        }                                                                                                              \
    }
#define INPUT(STORED, NAME) const STORED *restrict NAME = (const STORED *)job->NAME + row * job->NAME##_stride + column;
#define OUTPUT(STORED, NAME) STORED *restrict NAME = (STORED *)job->NAME + begin;
#define AHEAD(NAME)                                                                                                    \
    for (int64_t i = count; i < left && i < 2 * count; i += 64 / (int64_t)sizeof *NAME)                                \
        __builtin_prefetch(NAME + i, 0, 2);

// The functions of a dtype: how it is stored, what it is computed in, and the exponential of its precision.
// `gated` is GoLU(x) * other, as in gated linear units.
#define GOLU_FUNCTIONS(TYPE, STORED, COMPUTED, WIDEN, NARROW, EXPONENTIAL)                                             \
    typedef struct {                                                                                                   \
        COMPUTED alpha, beta, gamma, low, high;                                                                        \
    } Constants_##TYPE;                                                                                                \
                                                                                                                       \
    INLINE Constants_##TYPE constants_##TYPE(const Job *job) {                                                         \
        const Constants_##TYPE c = {(COMPUTED)job->alpha, (COMPUTED)job->beta, (COMPUTED)job->gamma,                   \
                                    (COMPUTED)job->low, (COMPUTED)job->high};                                          \
        return c;                                                                                                      \
    }                                                                                                                  \
                                                                                                                       \
    INLINE COMPUTED value_##TYPE(COMPUTED x, Constants_##TYPE c) {                                                     \
        x = x < c.low ? c.low : x;                                                                                     \
        const COMPUTED inside = x > c.high ? c.high : x;                                                               \
        return c.alpha * x * EXPONENTIAL(-c.beta * EXPONENTIAL(-c.gamma * inside));                                    \
    }                                                                                                                  \
                                                                                                                       \
    INLINE COMPUTED slope_##TYPE(COMPUTED x, Constants_##TYPE c) {                                                     \
        x = x < c.low ? c.low : x;                                                                                     \
        x = x > c.high ? c.high : x;                                                                                   \
        const COMPUTED decay = c.beta * EXPONENTIAL(-c.gamma * x);                                                     \
        return c.alpha * EXPONENTIAL(-decay) * (1 + c.gamma * x * decay);                                              \
    }                                                                                                                  \
                                                                                                                       \
    EXPORT void golu_forward_##TYPE(int64_t begin, int64_t end, void *context) {                                       \
        const Job *job = (const Job *)context;                                                                         \
        const Constants_##TYPE c = constants_##TYPE(job);                                                              \
        OVER_ROWS(INPUT(STORED, x) OUTPUT(STORED, result) AHEAD(x)                                                     \
            for (int64_t i = 0; i < count; ++i) result[i] = NARROW(value_##TYPE(WIDEN(x[i]), c));)                     \
    }                                                                                                                  \
                                                                                                                       \
    EXPORT void golu_backward_##TYPE(int64_t begin, int64_t end, void *context) {                                      \
        const Job *job = (const Job *)context;                                                                         \
        const Constants_##TYPE c = constants_##TYPE(job);                                                              \
        OVER_ROWS(INPUT(STORED, x) INPUT(STORED, gradient) OUTPUT(STORED, result)                                      \
            for (int64_t i = 0; i < count; ++i)                                                                        \
                result[i] = NARROW(WIDEN(gradient[i]) * slope_##TYPE(WIDEN(x[i]), c));)                                \
    }                                                                                                                  \
                                                                                                                       \
    EXPORT void golu_gated_forward_##TYPE(int64_t begin, int64_t end, void *context) {                                 \
        const Job *job = (const Job *)context;                                                                         \
        const Constants_##TYPE c = constants_##TYPE(job);                                                              \
        OVER_ROWS(INPUT(STORED, x) INPUT(STORED, other) OUTPUT(STORED, result) AHEAD(x) AHEAD(other)                   \
            for (int64_t i = 0; i < count; ++i)                                                                        \
                result[i] = NARROW(value_##TYPE(WIDEN(x[i]), c) * WIDEN(other[i]));)                                   \
    }                                                                                                                  \
                                                                                                                       \
    EXPORT void golu_gated_backward_##TYPE(int64_t begin, int64_t end, void *context) {                                \
        const Job *job = (const Job *)context;                                                                         \
        const Constants_##TYPE c = constants_##TYPE(job);                                                              \
        OVER_ROWS(INPUT(STORED, x) INPUT(STORED, other) INPUT(STORED, gradient)                                        \
                  OUTPUT(STORED, result) OUTPUT(STORED, other_result)                                                  \
            for (int64_t i = 0; i < count; ++i) {                                                                      \
                const COMPUTED wide = WIDEN(x[i]), incoming = WIDEN(gradient[i]);                                      \
                result[i] = NARROW(incoming * WIDEN(other[i]) * slope_##TYPE(wide, c));                                \
                other_result[i] = NARROW(incoming * value_##TYPE(wide, c));                                            \
            })                                                                                                         \
    }

INLINE Piece piece_of(const LearnedJob *job, int64_t unit) {
    const int64_t pieces = (job->length + job->piece - 1) / job->piece, row = unit / pieces;
    const int64_t before = unit % pieces * job->piece, left = job->length - before;
    const Piece found = {row % job->channels, row * job->length + before, left < job->piece ? left : job->piece};
    return found;
}

// Sums that are kept side by side, for the compiler to vectorize: it may not change their order by itself.
#define LANES 16

#define LEARNED_FUNCTIONS(TYPE, STORED, COMPUTED, WIDEN, NARROW, EXPONENTIAL)                                          \
    typedef struct {                                                                                                   \
        COMPUTED slope, of_alpha, of_beta, of_gamma;                                                                   \
    } Learned_##TYPE;                                                                                                  \
                                                                                                                       \
    INLINE Learned_##TYPE learned_##TYPE(COMPUTED x, COMPUTED incoming, Constants_##TYPE c) {                          \
        const COMPUTED open = x < c.low ? c.low : x;                                                                   \
        const COMPUTED inside = open > c.high ? c.high : open;                                                         \
        const COMPUTED decay = c.beta * EXPONENTIAL(-c.gamma * inside), rest = EXPONENTIAL(-decay);                    \
        const COMPUTED moved = open > c.high ? 0 : decay, of_beta = incoming * c.alpha * rest * inside * moved;        \
        const Learned_##TYPE found = {incoming * c.alpha * rest * (1 + c.gamma * inside * decay),                      \
                                      incoming * open * rest, of_beta, of_beta * inside};                              \
        return found;                                                                                                  \
    }                                                                                                                  \
                                                                                                                       \
    INLINE Constants_##TYPE channel_##TYPE(const LearnedJob *job, int64_t channel) {                                   \
        const COMPUTED *p = (const COMPUTED *)job->parameters + channel;                                               \
        const int64_t n = job->channels;                                                                               \
        const Constants_##TYPE c = {p[0], p[n], p[2 * n], p[3 * n], p[4 * n]};                                         \
        return c;                                                                                                      \
    }                                                                                                                  \
                                                                                                                       \
    EXPORT void golu_learned_forward_##TYPE(int64_t begin, int64_t end, void *context) {                               \
        const LearnedJob *job = (const LearnedJob *)context;                                                           \
        for (int64_t unit = begin; unit < end; ++unit) {                                                               \
            const Piece piece = piece_of(job, unit);                                                                   \
            const Constants_##TYPE c = channel_##TYPE(job, piece.channel);                                             \
            const int64_t start = piece.start, count = piece.count;                                                    \
            const STORED *restrict x = (const STORED *)job->x + start;                                                 \
            STORED *restrict result = (STORED *)job->result + start;                                                   \
            for (int64_t i = 0; i < count; ++i) result[i] = NARROW(value_##TYPE(WIDEN(x[i]), c));                      \
        }                                                                                                              \
    }                                                                                                                  \
                                                                                                                       \
    EXPORT void golu_learned_backward_##TYPE(int64_t begin, int64_t end, void *context) {                              \
        const LearnedJob *job = (const LearnedJob *)context;                                                           \
        for (int64_t unit = begin; unit < end; ++unit) {                                                               \
            const Piece piece = piece_of(job, unit);                                                                   \
            const Constants_##TYPE c = channel_##TYPE(job, piece.channel);                                             \
            const int64_t start = piece.start, count = piece.count;                                                    \
            const STORED *restrict x = (const STORED *)job->x + start;                                                 \
            const STORED *restrict gradient = (const STORED *)job->gradient + start;                                   \
            STORED *restrict result = (STORED *)job->result + start;                                                   \
            COMPUTED of_alpha[LANES] = {0}, of_beta[LANES] = {0}, of_gamma[LANES] = {0};                               \
            int64_t i = 0;                                                                                             \
            for (; i + LANES <= count; i += LANES)                                                                     \
                for (int lane = 0; lane < LANES; ++lane) {                                                             \
                    const Learned_##TYPE f = learned_##TYPE(WIDEN(x[i + lane]), WIDEN(gradient[i + lane]), c);         \
                    result[i + lane] = NARROW(f.slope);                                                                \
                    of_alpha[lane] += f.of_alpha;                                                                      \
                    of_beta[lane] += f.of_beta;                                                                        \
                    of_gamma[lane] += f.of_gamma;                                                                      \
                }                                                                                                      \
            for (; i < count; ++i) {                                                                                   \
                const Learned_##TYPE f = learned_##TYPE(WIDEN(x[i]), WIDEN(gradient[i]), c);                           \
                result[i] = NARROW(f.slope);                                                                           \
                of_alpha[0] += f.of_alpha;                                                                             \
                of_beta[0] += f.of_beta;                                                                               \
                of_gamma[0] += f.of_gamma;                                                                             \
            }                                                                                                          \
            COMPUTED *sums = (COMPUTED *)job->sums + 3 * unit;                                                         \
            sums[0] = sums[1] = sums[2] = 0;                                                                           \
            for (int lane = 0; lane < LANES; ++lane) {                                                                 \
                sums[0] += of_alpha[lane];                                                                             \
                sums[1] += of_beta[lane];                                                                              \
                sums[2] += of_gamma[lane];                                                                             \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
                                                                                                                       \
    EXPORT void golu_learned_forward_last_##TYPE(int64_t begin, int64_t end, void *context) {                          \
        const LearnedJob *job = (const LearnedJob *)context;                                                           \
        const int64_t n = job->channels, rows = job->count / n;                                                        \
        const COMPUTED *restrict p = (const COMPUTED *)job->parameters;                                                \
        for (int64_t row = begin * job->length; row < end * job->length && row < rows; ++row) {                        \
            const STORED *restrict x = (const STORED *)job->x + row * n;                                               \
            STORED *restrict result = (STORED *)job->result + row * n;                                                 \
            for (int64_t i = 0; i < n; ++i) {                                                                          \
                const Constants_##TYPE c = {p[i], p[n + i], p[2 * n + i], p[3 * n + i], p[4 * n + i]};                 \
                result[i] = NARROW(value_##TYPE(WIDEN(x[i]), c));                                                      \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
                                                                                                                       \
    INLINE void backward_tile_##TYPE(const LearnedJob *job, int64_t unit, int64_t first, int width) {                  \
        const int64_t n = job->channels, rows = job->count / n, stop = (unit + 1) * job->length;                       \
        COMPUTED of_alpha[LANES] = {0}, of_beta[LANES] = {0}, of_gamma[LANES] = {0};                                   \
        COMPUTED p[5][LANES];                                                                                          \
        for (int kind = 0; kind < 5; ++kind)                                                                           \
            memcpy(p[kind], (const COMPUTED *)job->parameters + kind * n + first, (size_t)width * sizeof **p);         \
        for (int64_t row = unit * job->length; row < stop && row < rows; ++row) {                                      \
            const STORED *restrict x = (const STORED *)job->x + row * n + first;                                       \
            const STORED *restrict gradient = (const STORED *)job->gradient + row * n + first;                         \
            STORED *restrict result = (STORED *)job->result + row * n + first;                                         \
            for (int lane = 0; lane < width; ++lane) {                                                                 \
                const Constants_##TYPE c = {p[0][lane], p[1][lane], p[2][lane], p[3][lane], p[4][lane]};               \
                const Learned_##TYPE f = learned_##TYPE(WIDEN(x[lane]), WIDEN(gradient[lane]), c);                     \
                result[lane] = NARROW(f.slope);                                                                        \
                of_alpha[lane] += f.of_alpha;                                                                          \
                of_beta[lane] += f.of_beta;                                                                            \
                of_gamma[lane] += f.of_gamma;                                                                          \
            }                                                                                                          \
        }                                                                                                              \
        COMPUTED *sums = (COMPUTED *)job->sums + 3 * n * unit + first;                                                 \
        for (int lane = 0; lane < width; ++lane) {                                                                     \
            sums[lane] = of_alpha[lane];                                                                               \
            sums[n + lane] = of_beta[lane];                                                                            \
            sums[2 * n + lane] = of_gamma[lane];                                                                       \
        }                                                                                                              \
    }                                                                                                                  \
                                                                                                                       \
    EXPORT void golu_learned_backward_last_##TYPE(int64_t begin, int64_t end, void *context) {                         \
        const LearnedJob *job = (const LearnedJob *)context;                                                           \
        for (int64_t unit = begin; unit < end; ++unit) {                                                               \
            int64_t first = 0;                                                                                         \
            for (; first + LANES <= job->channels; first += LANES) backward_tile_##TYPE(job, unit, first, LANES);      \
            if (first < job->channels) backward_tile_##TYPE(job, unit, first, (int)(job->channels - first));           \
        }                                                                                                              \
    }

#define ALL_FUNCTIONS(...) GOLU_FUNCTIONS(__VA_ARGS__) LEARNED_FUNCTIONS(__VA_ARGS__)

ALL_FUNCTIONS(float64, double, double, double_of_double, double_of_double, double_exponential)
ALL_FUNCTIONS(float32, float, float, float_of_float, float_of_float, float_exponential)
ALL_FUNCTIONS(float16, uint16_t, float, float_of_float16, float16_of_float, half_exponential)
ALL_FUNCTIONS(bfloat16, uint16_t, float, float_of_bfloat16, bfloat16_of_float, half_exponential)
