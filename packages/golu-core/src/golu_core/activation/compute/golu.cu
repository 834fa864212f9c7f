// GoLU forward and backward, for one flat, dense block of memory or for rows that lie apart.
//
//     gate(x)  = alpha * exp(-beta * exp(-gamma * x))               (Gompertz)
//     GoLU(x)  = x * gate(x)
//     GoLU'(x) = gate(x) * (1 + beta * gamma * x * exp(-gamma * x))
//
// Each kernel exists twice per dtype. The `_vector` one moves GOLU_VECTORS times 16 bytes a thread, with GOLU_STREAMING
// past the cache, and its last threads take the elements that are left; it needs 16-byte aligned pointers. The
// `_scalar` one moves one element a thread. Those with `_rows` read rows of `columns` elements, whose starts lie a
// stride of elements apart, and write dense; the gated ones, GoLU(x) * other, have no others.
//
// float32 and float64 use the accurate natural exponential. float16 and bfloat16 compute in float32 with the hardware's
// base-2 exponential, whose error vanishes in the final rounding. The host folds the base into the constants:
//
//     s = weight * exponential(-rate * x)      beta * exp(-gamma * x), times log2(e) in base 2
//     gate = alpha * exponential(-s)
//     gate * (1 + slope * x * s)               slope = gamma, times ln(2) in base 2
//
// The `_learned` ones have parameters that are tensors, one each or one a channel, and their backward pass leaves sums
// for the parameters' gradients, one of each thread: which elements a thread takes depends on the shape alone.
//
// x is clamped to [low, high] where the gate has reached 0 or alpha, so that no product is 0 * inf. The comparisons are
// written such that NaN stays NaN.

#ifndef GOLU_VECTORS
#define GOLU_VECTORS 1
#endif

#ifndef GOLU_DEVICE_INSTRUCTIONS  // a build for the CPU (the tests) brings its own five
#define GOLU_DEVICE_INSTRUCTIONS

static __device__ __forceinline__ float base2_exponential(float t) {
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(t));
    return result;
}

static __device__ __forceinline__ float float_from_half(unsigned short bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

static __device__ __forceinline__ unsigned short half_from_float(float value) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

static __device__ __forceinline__ float float_from_bits(unsigned int bits) { return __uint_as_float(bits); }
#if __CUDA_ARCH__ < 800
static __device__ __forceinline__ unsigned int bits_from_float(float value) { return __float_as_uint(value); }
#endif

#endif

struct Float64 {
    typedef double Stored;
    typedef double Computed;
    static __device__ __forceinline__ double log_of_base() { return 1.0; }
    static __device__ __forceinline__ double to_base() { return 1.0; }
    static __device__ __forceinline__ double logarithm(double t) { return log(t); }
    static __device__ __forceinline__ double widen(double stored) { return stored; }
    static __device__ __forceinline__ double narrow(double value) { return value; }
    static __device__ __forceinline__ double exponential(double t) { return exp(t); }
};

struct Float32 {
    typedef float Stored;
    typedef float Computed;
    static __device__ __forceinline__ float log_of_base() { return 1.0f; }
    static __device__ __forceinline__ float to_base() { return 1.0f; }
    static __device__ __forceinline__ float logarithm(float t) { return logf(t); }
    static __device__ __forceinline__ float widen(float stored) { return stored; }
    static __device__ __forceinline__ float narrow(float value) { return value; }
    static __device__ __forceinline__ float exponential(float t) { return expf(t); }
};

struct Float16 {
    typedef unsigned short Stored;
    typedef float Computed;
    static __device__ __forceinline__ float log_of_base() { return 0.693147181f; }
    static __device__ __forceinline__ float to_base() { return 1.44269504f; }
    static __device__ __forceinline__ float logarithm(float t) { return logf(t); }
    static __device__ __forceinline__ float widen(unsigned short stored) { return float_from_half(stored); }
    static __device__ __forceinline__ unsigned short narrow(float value) { return half_from_float(value); }
    static __device__ __forceinline__ float exponential(float t) { return base2_exponential(t); }
};

struct BFloat16 {
    typedef unsigned short Stored;
    typedef float Computed;
    static __device__ __forceinline__ float log_of_base() { return 0.693147181f; }
    static __device__ __forceinline__ float to_base() { return 1.44269504f; }
    static __device__ __forceinline__ float logarithm(float t) { return logf(t); }
    static __device__ __forceinline__ float widen(unsigned short stored) {
        return float_from_bits((unsigned int)stored << 16);
    }
    static __device__ __forceinline__ unsigned short narrow(float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
        unsigned short stored;
        asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(stored) : "f"(value));
        return stored;
#else
        unsigned int bits = bits_from_float(value);
        if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffu;  // NaN: rounding could carry it into infinity
        return (unsigned short)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);  // to nearest, ties to even
#endif
    }
    static __device__ __forceinline__ float exponential(float t) { return base2_exponential(t); }
};

template <typename Type>
struct Constants {
    typename Type::Computed alpha, rate, weight, slope, low, high;
};

template <typename Type>
static __device__ __forceinline__ typename Type::Computed value_of(typename Type::Computed x, Constants<Type> c) {
    x = x < c.low ? c.low : x;
    typename Type::Computed s = c.weight * Type::exponential(-c.rate * x);
    return c.alpha * x * Type::exponential(-s);
}

template <typename Type>
static __device__ __forceinline__ typename Type::Computed slope_of(typename Type::Computed x, Constants<Type> c) {
    x = x < c.low ? c.low : (x > c.high ? c.high : x);
    typename Type::Computed s = c.weight * Type::exponential(-c.rate * x);
    typename Type::Computed gate = c.alpha * Type::exponential(-s);
    return gate * (1 + c.slope * x * s);
}

template <typename Type>
static __device__ __forceinline__ typename Type::Stored forward_of(typename Type::Stored stored, Constants<Type> c) {
    return Type::narrow(value_of<Type>(Type::widen(stored), c));
}

template <typename Type>
static __device__ __forceinline__ typename Type::Stored backward_of(
    typename Type::Stored stored, typename Type::Stored gradient, Constants<Type> c) {
    return Type::narrow(Type::widen(gradient) * slope_of<Type>(Type::widen(stored), c));
}

template <typename Stored>
struct alignas(16) Vector {
    static const int size = 16 / sizeof(Stored);
    Stored elements[size];
};

static __device__ __forceinline__ long long thread_index() {
    return (long long)blockIdx.x * blockDim.x + threadIdx.x;
}

template <typename Pack>
static __device__ __forceinline__ Pack loaded(const Pack* place) {
#ifdef GOLU_STREAMING
    Pack pack;
    *reinterpret_cast<int4*>(&pack) = __ldcs(reinterpret_cast<const int4*>(place));
    return pack;
#else
    return *place;
#endif
}

template <typename Pack>
static __device__ __forceinline__ void store(Pack* place, const Pack& pack) {
#ifdef GOLU_STREAMING
    __stcs(reinterpret_cast<int4*>(place), *reinterpret_cast<const int4*>(&pack));
#else
    *place = pack;
#endif
}

// A thread's vectors lie `threads` apart, so that threads beside each other read what lies beside each other.
template <typename Type>
static __device__ __forceinline__ void forward_vector(
    const typename Type::Stored* x, typename Type::Stored* y, long long count, Constants<Type> c) {
    typedef Vector<typename Type::Stored> Pack;
    const long long threads = count / (Pack::size * GOLU_VECTORS);
    const long long thread = thread_index();
    if (thread < threads) {
        Pack input[GOLU_VECTORS];
#pragma unroll
        for (int v = 0; v < GOLU_VECTORS; ++v)
            input[v] = loaded(reinterpret_cast<const Pack*>(x) + thread + v * threads);
#pragma unroll
        for (int v = 0; v < GOLU_VECTORS; ++v) {
            Pack output;
#pragma unroll
            for (int k = 0; k < Pack::size; ++k) output.elements[k] = forward_of<Type>(input[v].elements[k], c);
            store(reinterpret_cast<Pack*>(y) + thread + v * threads, output);
        }
        return;
    }
    const long long rest = threads * GOLU_VECTORS * Pack::size + (thread - threads);
    if (rest < count) y[rest] = forward_of<Type>(x[rest], c);
}

template <typename Type>
static __device__ __forceinline__ void backward_vector(
    const typename Type::Stored* x, const typename Type::Stored* gradient, typename Type::Stored* result,
    long long count, Constants<Type> c) {
    typedef Vector<typename Type::Stored> Pack;
    const long long threads = count / (Pack::size * GOLU_VECTORS);
    const long long thread = thread_index();
    if (thread < threads) {
        Pack input[GOLU_VECTORS], incoming[GOLU_VECTORS];
#pragma unroll
        for (int v = 0; v < GOLU_VECTORS; ++v) {
            input[v] = loaded(reinterpret_cast<const Pack*>(x) + thread + v * threads);
            incoming[v] = loaded(reinterpret_cast<const Pack*>(gradient) + thread + v * threads);
        }
#pragma unroll
        for (int v = 0; v < GOLU_VECTORS; ++v) {
            Pack output;
#pragma unroll
            for (int k = 0; k < Pack::size; ++k)
                output.elements[k] = backward_of<Type>(input[v].elements[k], incoming[v].elements[k], c);
            store(reinterpret_cast<Pack*>(result) + thread + v * threads, output);
        }
        return;
    }
    const long long rest = threads * GOLU_VECTORS * Pack::size + (thread - threads);
    if (rest < count) result[rest] = backward_of<Type>(x[rest], gradient[rest], c);
}

enum Operation { FORWARD, BACKWARD, GATED_FORWARD, GATED_BACKWARD };

template <typename Type>
struct Rows {
    const typename Type::Stored *x, *other, *gradient;
    typename Type::Stored *result, *other_result;
    long long rows, columns, x_stride, other_stride, gradient_stride;
};

template <typename Stored, int SIZE>
struct alignas(SIZE * sizeof(Stored)) Pack {
    Stored elements[SIZE];
};

template <typename Type, int OPERATION, int SIZE>
static __device__ __forceinline__ void over_rows(Rows<Type> r, Constants<Type> c) {
    typedef Pack<typename Type::Stored, SIZE> Packed;
    typedef typename Type::Computed Computed;
    const bool gated = OPERATION == GATED_FORWARD || OPERATION == GATED_BACKWARD;
    const bool backward = OPERATION == BACKWARD || OPERATION == GATED_BACKWARD;
    const long long column = thread_index() * SIZE;
    if (column >= r.columns) return;
    long long row = (long long)blockIdx.y * blockDim.y + threadIdx.y;
    for (; row < r.rows; row += (long long)gridDim.y * blockDim.y) {
        const Packed x = *reinterpret_cast<const Packed*>(r.x + row * r.x_stride + column);
        Packed other, gradient, result, other_result;
        if (gated) other = *reinterpret_cast<const Packed*>(r.other + row * r.other_stride + column);
        if (backward) gradient = *reinterpret_cast<const Packed*>(r.gradient + row * r.gradient_stride + column);
#pragma unroll
        for (int k = 0; k < SIZE; ++k) {
            const Computed wide = Type::widen(x.elements[k]);
            Computed factor = 1;
            if (gated) factor = Type::widen(other.elements[k]);
            if (backward) factor = (gated ? factor : 1) * Type::widen(gradient.elements[k]);
            const Computed value = backward ? slope_of<Type>(wide, c) : value_of<Type>(wide, c);
            result.elements[k] = Type::narrow(gated || backward ? factor * value : value);
            if (OPERATION == GATED_BACKWARD)
                other_result.elements[k] = Type::narrow(Type::widen(gradient.elements[k]) * value_of<Type>(wide, c));
        }
        const long long at = row * r.columns + column;
        *reinterpret_cast<Packed*>(r.result + at) = result;
        if (OPERATION == GATED_BACKWARD) *reinterpret_cast<Packed*>(r.other_result + at) = other_result;
    }
}

// ln(beta) - gamma * x from which on the gate is 0, and down to which it is alpha, as in gate_range of parameters.py
static const float CLOSED = 7, OPEN = -60;

template <typename Type>
struct Learned {
    const typename Type::Stored *x, *gradient;
    const typename Type::Computed *alpha, *beta, *gamma;
    typename Type::Stored* result;
    typename Type::Computed* sums;  // three of each thread, kind after kind
    long long alpha_step, beta_step, gamma_step;  // from a channel's parameter to the next one's: 0 or 1
    long long rows, channels, columns, rows_at_once, columns_at_once, parts_of_columns, lanes, threads;
};

template <typename Computed>
static __device__ __forceinline__ bool is_positive(Computed parameter) {
    return parameter > 0 && parameter * 0 == 0;  // and finite
}

template <typename Type>
static __device__ __forceinline__ Constants<Type> constants_of(Learned<Type> l, unsigned int channel) {
    typedef typename Type::Computed Computed;
    const Computed beta = l.beta[channel * l.beta_step], gamma = l.gamma[channel * l.gamma_step];
    const Computed shift = Type::logarithm(beta), inverse = 1 / gamma;
    Constants<Type> c = {l.alpha[channel * l.alpha_step], gamma * Type::to_base(), beta * Type::to_base(),
                         gamma * Type::log_of_base(), (shift - CLOSED) * inverse, (shift - OPEN) * inverse};
    const bool known = is_positive(c.alpha) && is_positive(beta) && is_positive(gamma);
    if (!known) c.alpha = c.weight = Type::logarithm(-1);  // not a number
    return c;
}

// GoLU of x as rows of `channels` stretches of `columns` elements. A group of `lanes` threads takes the elements of one
// channel in some rows and columns, each thread every lanes-th of them.
template <typename Type, bool BACKWARD>
static __device__ __forceinline__ void over_channels(Learned<Type> l) {
    typedef typename Type::Computed Computed;
    if (thread_index() >= l.threads) return;
    const unsigned int thread = (unsigned int)thread_index(), lanes = (unsigned int)l.lanes;
    const unsigned int group = thread / lanes, part = group / (unsigned int)l.channels;
    const unsigned int channel = group - part * (unsigned int)l.channels;
    const unsigned int down = part / (unsigned int)l.parts_of_columns;
    const long long first = (part - down * l.parts_of_columns) * l.columns_at_once, from = down * l.rows_at_once;
    const int width = (int)(l.columns - first < l.columns_at_once ? l.columns - first : l.columns_at_once);
    int rows = (int)(l.rows - from < l.rows_at_once ? l.rows - from : l.rows_at_once);
    int column = (int)(thread - group * lanes);
    long long at = (from * l.channels + channel) * l.columns + first + column;
    const long long to_next_row = l.channels * l.columns - width;
    const Constants<Type> c = constants_of<Type>(l, channel);
    Computed of_alpha = 0, of_beta = 0, of_gamma = 0;
    for (;; column += (int)lanes, at += lanes) {
        for (; column >= width; column -= width, --rows) at += to_next_row;
        if (rows <= 0) break;
        const Computed x = Type::widen(l.x[at]);
        if (!BACKWARD) {
            l.result[at] = Type::narrow(value_of<Type>(x, c));
            continue;
        }
        const Computed incoming = Type::widen(l.gradient[at]);
        const Computed above = x < c.low ? c.low : x, inside = above > c.high ? c.high : above;
        const Computed s = c.weight * Type::exponential(-c.rate * inside), rest = Type::exponential(-s);
        const Computed product = incoming * c.alpha * rest * inside * s;
        l.result[at] = Type::narrow(incoming * c.alpha * rest * (1 + c.slope * inside * s));
        of_alpha += incoming * above * rest;
        of_beta += product;
        of_gamma += product * inside;
    }
    if (!BACKWARD) return;
    l.sums[thread] = of_alpha;
    l.sums[l.threads + thread] = of_beta * Type::log_of_base();
    l.sums[2 * l.threads + thread] = of_gamma * Type::log_of_base();
}

#define GOLU_KERNELS(TYPE, NAME)                                                                                      \
    extern "C" __global__ void golu_forward_##NAME##_vector(                                                          \
        const TYPE::Stored* x, TYPE::Stored* y, long long count, TYPE::Computed alpha, TYPE::Computed rate,           \
        TYPE::Computed weight, TYPE::Computed slope, TYPE::Computed low, TYPE::Computed high) {                       \
        forward_vector<TYPE>(x, y, count, Constants<TYPE>{alpha, rate, weight, slope, low, high});                    \
    }                                                                                                                 \
    extern "C" __global__ void golu_forward_##NAME##_scalar(                                                          \
        const TYPE::Stored* x, TYPE::Stored* y, long long count, TYPE::Computed alpha, TYPE::Computed rate,           \
        TYPE::Computed weight, TYPE::Computed slope, TYPE::Computed low, TYPE::Computed high) {                       \
        const long long i = thread_index();                                                                          \
        if (i < count) y[i] = forward_of<TYPE>(x[i], Constants<TYPE>{alpha, rate, weight, slope, low, high});         \
    }                                                                                                                 \
    extern "C" __global__ void golu_backward_##NAME##_vector(                                                         \
        const TYPE::Stored* x, const TYPE::Stored* gradient, TYPE::Stored* result, long long count,                   \
        TYPE::Computed alpha, TYPE::Computed rate, TYPE::Computed weight, TYPE::Computed slope, TYPE::Computed low,   \
        TYPE::Computed high) {                                                                                        \
        backward_vector<TYPE>(x, gradient, result, count, Constants<TYPE>{alpha, rate, weight, slope, low, high});    \
    }                                                                                                                 \
    extern "C" __global__ void golu_backward_##NAME##_scalar(                                                         \
        const TYPE::Stored* x, const TYPE::Stored* gradient, TYPE::Stored* result, long long count,                   \
        TYPE::Computed alpha, TYPE::Computed rate, TYPE::Computed weight, TYPE::Computed slope, TYPE::Computed low,   \
        TYPE::Computed high) {                                                                                        \
        const long long i = thread_index();                                                                          \
        if (i < count)                                                                                                \
            result[i] = backward_of<TYPE>(x[i], gradient[i], Constants<TYPE>{alpha, rate, weight, slope, low, high}); \
    }

#define GOLU_ROW_KERNEL(TYPE, NAME, OPERATION, KIND, SIZE)                                                            \
    extern "C" __global__ void golu_##NAME##_rows_##KIND(                                                             \
        const TYPE::Stored* x, const TYPE::Stored* other, const TYPE::Stored* gradient, TYPE::Stored* result,         \
        TYPE::Stored* other_result, long long rows, long long columns, long long x_stride, long long other_stride,    \
        long long gradient_stride, TYPE::Computed alpha, TYPE::Computed rate, TYPE::Computed weight,                  \
        TYPE::Computed slope, TYPE::Computed low, TYPE::Computed high) {                                              \
        over_rows<TYPE, OPERATION, SIZE>(                                                                             \
            Rows<TYPE>{x, other, gradient, result, other_result, rows, columns, x_stride, other_stride,               \
                       gradient_stride},                                                                              \
            Constants<TYPE>{alpha, rate, weight, slope, low, high});                                                  \
    }

#define GOLU_ROW_KERNELS(TYPE, NAME)                                                                                  \
    GOLU_ROW_KERNEL(TYPE, forward_##NAME, FORWARD, vector, 16 / sizeof(TYPE::Stored))                                 \
    GOLU_ROW_KERNEL(TYPE, forward_##NAME, FORWARD, scalar, 1)                                                         \
    GOLU_ROW_KERNEL(TYPE, backward_##NAME, BACKWARD, vector, 16 / sizeof(TYPE::Stored))                               \
    GOLU_ROW_KERNEL(TYPE, backward_##NAME, BACKWARD, scalar, 1)                                                       \
    GOLU_ROW_KERNEL(TYPE, gated_forward_##NAME, GATED_FORWARD, vector, 16 / sizeof(TYPE::Stored))                     \
    GOLU_ROW_KERNEL(TYPE, gated_forward_##NAME, GATED_FORWARD, scalar, 1)                                             \
    GOLU_ROW_KERNEL(TYPE, gated_backward_##NAME, GATED_BACKWARD, vector, 16 / sizeof(TYPE::Stored))                   \
    GOLU_ROW_KERNEL(TYPE, gated_backward_##NAME, GATED_BACKWARD, scalar, 1)

#define GOLU_LEARNED_KERNEL(TYPE, NAME, DIRECTION, BACKWARD)                                                          \
    extern "C" __global__ void golu_learned_##DIRECTION##_##NAME(                                                     \
        const TYPE::Stored* x, const TYPE::Stored* gradient, const TYPE::Computed* alpha, const TYPE::Computed* beta, \
        const TYPE::Computed* gamma, TYPE::Stored* result, TYPE::Computed* sums, long long alpha_step,                \
        long long beta_step, long long gamma_step, long long rows, long long channels, long long columns,             \
        long long rows_at_once, long long columns_at_once, long long parts_of_columns, long long lanes,               \
        long long threads) {                                                                                          \
        over_channels<TYPE, BACKWARD>(Learned<TYPE>{x, gradient, alpha, beta, gamma, result, sums, alpha_step,        \
                                                    beta_step, gamma_step, rows, channels, columns, rows_at_once,     \
                                                    columns_at_once, parts_of_columns, lanes, threads});              \
    }

GOLU_KERNELS(Float64, float64)
GOLU_KERNELS(Float32, float32)
GOLU_KERNELS(Float16, float16)
GOLU_KERNELS(BFloat16, bfloat16)

GOLU_ROW_KERNELS(Float64, float64)
GOLU_ROW_KERNELS(Float32, float32)
GOLU_ROW_KERNELS(Float16, float16)
GOLU_ROW_KERNELS(BFloat16, bfloat16)

GOLU_LEARNED_KERNEL(Float64, float64, forward, false)
GOLU_LEARNED_KERNEL(Float64, float64, backward, true)
GOLU_LEARNED_KERNEL(Float32, float32, forward, false)
GOLU_LEARNED_KERNEL(Float32, float32, backward, true)
GOLU_LEARNED_KERNEL(Float16, float16, forward, false)
GOLU_LEARNED_KERNEL(Float16, float16, backward, true)
GOLU_LEARNED_KERNEL(BFloat16, bfloat16, forward, false)
GOLU_LEARNED_KERNEL(BFloat16, bfloat16, backward, true)
