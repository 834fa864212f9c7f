// GoLU forward and backward for one flat, dense block of memory.
//
//     gate(x)  = alpha * exp(-beta * exp(-gamma * x))               (Gompertz)
//     GoLU(x)  = x * gate(x)
//     GoLU'(x) = gate(x) * (1 + beta * gamma * x * exp(-gamma * x))
//
// Each kernel exists twice per dtype. The `_vector` one moves 16 bytes a thread and its last threads take the elements
// that do not fill a vector; it needs 16-byte aligned pointers. The `_scalar` one moves one element a thread.
//
// float32 and float64 use the accurate natural exponential. float16 and bfloat16 compute in float32 with the hardware's
// base-2 exponential, whose error vanishes in the final rounding. The host folds the base into the constants:
//
//     s = weight * exponential(-rate * x)      beta * exp(-gamma * x), times log2(e) in base 2
//     gate = alpha * exponential(-s)
//     gate * (1 + slope * x * s)               slope = gamma, times ln(2) in base 2
//
// x is clamped to [low, high] where the gate has reached 0 or alpha, so that no product is 0 * inf. The comparisons are
// written such that NaN stays NaN.

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
    static __device__ __forceinline__ double widen(double stored) { return stored; }
    static __device__ __forceinline__ double narrow(double value) { return value; }
    static __device__ __forceinline__ double exponential(double t) { return exp(t); }
};

struct Float32 {
    typedef float Stored;
    typedef float Computed;
    static __device__ __forceinline__ float widen(float stored) { return stored; }
    static __device__ __forceinline__ float narrow(float value) { return value; }
    static __device__ __forceinline__ float exponential(float t) { return expf(t); }
};

struct Float16 {
    typedef unsigned short Stored;
    typedef float Computed;
    static __device__ __forceinline__ float widen(unsigned short stored) { return float_from_half(stored); }
    static __device__ __forceinline__ unsigned short narrow(float value) { return half_from_float(value); }
    static __device__ __forceinline__ float exponential(float t) { return base2_exponential(t); }
};

struct BFloat16 {
    typedef unsigned short Stored;
    typedef float Computed;
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
static __device__ __forceinline__ typename Type::Stored forward_of(typename Type::Stored stored, Constants<Type> c) {
    typename Type::Computed x = Type::widen(stored);
    x = x < c.low ? c.low : x;
    typename Type::Computed s = c.weight * Type::exponential(-c.rate * x);
    return Type::narrow(c.alpha * x * Type::exponential(-s));
}

template <typename Type>
static __device__ __forceinline__ typename Type::Stored backward_of(
    typename Type::Stored stored, typename Type::Stored gradient, Constants<Type> c) {
    typename Type::Computed x = Type::widen(stored);
    x = x < c.low ? c.low : (x > c.high ? c.high : x);
    typename Type::Computed s = c.weight * Type::exponential(-c.rate * x);
    typename Type::Computed gate = c.alpha * Type::exponential(-s);
    return Type::narrow(Type::widen(gradient) * (gate * (1 + c.slope * x * s)));
}

template <typename Stored>
struct alignas(16) Vector {
    static const int size = 16 / sizeof(Stored);
    Stored elements[size];
};

static __device__ __forceinline__ long long thread_index() {
    return (long long)blockIdx.x * blockDim.x + threadIdx.x;
}

template <typename Type>
static __device__ __forceinline__ void forward_vector(
    const typename Type::Stored* x, typename Type::Stored* y, long long count, Constants<Type> c) {
    typedef Vector<typename Type::Stored> Pack;
    const long long vectors = count / Pack::size;
    const long long thread = thread_index();
    if (thread < vectors) {
        const Pack input = reinterpret_cast<const Pack*>(x)[thread];
        Pack output;
#pragma unroll
        for (int k = 0; k < Pack::size; ++k) output.elements[k] = forward_of<Type>(input.elements[k], c);
        reinterpret_cast<Pack*>(y)[thread] = output;
        return;
    }
    const long long rest = vectors * Pack::size + (thread - vectors);
    if (rest < count) y[rest] = forward_of<Type>(x[rest], c);
}

template <typename Type>
static __device__ __forceinline__ void backward_vector(
    const typename Type::Stored* x, const typename Type::Stored* gradient, typename Type::Stored* result,
    long long count, Constants<Type> c) {
    typedef Vector<typename Type::Stored> Pack;
    const long long vectors = count / Pack::size;
    const long long thread = thread_index();
    if (thread < vectors) {
        const Pack input = reinterpret_cast<const Pack*>(x)[thread];
        const Pack incoming = reinterpret_cast<const Pack*>(gradient)[thread];
        Pack output;
#pragma unroll
        for (int k = 0; k < Pack::size; ++k)
            output.elements[k] = backward_of<Type>(input.elements[k], incoming.elements[k], c);
        reinterpret_cast<Pack*>(result)[thread] = output;
        return;
    }
    const long long rest = vectors * Pack::size + (thread - vectors);
    if (rest < count) result[rest] = backward_of<Type>(x[rest], gradient[rest], c);
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

GOLU_KERNELS(Float64, float64)
GOLU_KERNELS(Float32, float32)
GOLU_KERNELS(Float16, float16)
GOLU_KERNELS(BFloat16, bfloat16)
