// What the unmodified golu.cu needs to be compiled as C++ for the CPU: CUDA's qualifiers away, thread indices as
// variables, and the device instructions that the source takes from the outside.
#include <cmath>
#include <cstring>

#define __device__
#define __global__
#define __forceinline__ inline

struct Index3 { unsigned int x, y, z; };
static thread_local Index3 blockIdx, threadIdx, blockDim, gridDim;

struct int4 { int x, y, z, w; };
template <typename T> static inline T __ldcs(const T* place) { return *place; }
template <typename T> static inline void __stcs(T* place, T value) { *place = value; }

using std::exp;
static inline float expf_of(float t) { return std::exp(t); }
#define expf expf_of

#define GOLU_DEVICE_INSTRUCTIONS
static inline float base2_exponential(float t) { return std::exp2(t); }
static inline float float_from_bits(unsigned int bits) { float value; std::memcpy(&value, &bits, 4); return value; }
static inline unsigned int bits_from_float(float value) { unsigned int bits; std::memcpy(&bits, &value, 4); return bits; }
static inline float float_from_half(unsigned short bits) { _Float16 half; std::memcpy(&half, &bits, 2); return (float)half; }
static inline unsigned short half_from_float(float value) {
    _Float16 half = (_Float16)value;
    unsigned short bits;
    std::memcpy(&bits, &half, 2);
    return bits;
}

// Runs a kernel over a grid, one thread after the other.
#define EMULATE(NAME, STORED, COMPUTED)                                                                                  \
    extern "C" void run_golu_forward_##NAME(                                                                             \
        unsigned blocks, unsigned threads, const STORED* x, STORED* y, long long count, const double* c) {               \
        blockDim = {threads, 1, 1};                                                                                      \
        for (unsigned b = 0; b < blocks; ++b)                                                                            \
            for (unsigned t = 0; t < threads; ++t) {                                                                     \
                blockIdx = {b, 0, 0};                                                                                    \
                threadIdx = {t, 0, 0};                                                                                   \
                golu_forward_##NAME(x, y, count, (COMPUTED)c[0], (COMPUTED)c[1], (COMPUTED)c[2], (COMPUTED)c[3],         \
                                    (COMPUTED)c[4], (COMPUTED)c[5]);                                                     \
            }                                                                                                            \
    }                                                                                                                    \
    extern "C" void run_golu_backward_##NAME(                                                                            \
        unsigned blocks, unsigned threads, const STORED* x, const STORED* g, STORED* r, long long count,                 \
        const double* c) {                                                                                               \
        blockDim = {threads, 1, 1};                                                                                      \
        for (unsigned b = 0; b < blocks; ++b)                                                                            \
            for (unsigned t = 0; t < threads; ++t) {                                                                     \
                blockIdx = {b, 0, 0};                                                                                    \
                threadIdx = {t, 0, 0};                                                                                   \
                golu_backward_##NAME(x, g, r, count, (COMPUTED)c[0], (COMPUTED)c[1], (COMPUTED)c[2], (COMPUTED)c[3],     \
                                     (COMPUTED)c[4], (COMPUTED)c[5]);                                                    \
            }                                                                                                            \
    }

// Runs a kernel of rows over a grid and blocks of two dimensions.
#define EMULATE_ROWS(NAME, STORED, COMPUTED)                                                                             \
    extern "C" void run_golu_##NAME(                                                                                     \
        unsigned grid_x, unsigned grid_y, unsigned block_x, unsigned block_y, const STORED* x, const STORED* other,      \
        const STORED* gradient, STORED* result, STORED* other_result, const long long* n, const double* c) {             \
        blockDim = {block_x, block_y, 1};                                                                                \
        gridDim = {grid_x, grid_y, 1};                                                                                   \
        for (unsigned b = 0; b < grid_x * grid_y; ++b)                                                                   \
            for (unsigned t = 0; t < block_x * block_y; ++t) {                                                           \
                blockIdx = {b % grid_x, b / grid_x, 0};                                                                  \
                threadIdx = {t % block_x, t / block_x, 0};                                                               \
                golu_##NAME(x, other, gradient, result, other_result, n[0], n[1], n[2], n[3], n[4], (COMPUTED)c[0],      \
                            (COMPUTED)c[1], (COMPUTED)c[2], (COMPUTED)c[3], (COMPUTED)c[4], (COMPUTED)c[5]);             \
            }                                                                                                            \
    }


// Runs a kernel of learned parameters over a grid of one dimension: `n` are its eleven numbers.
#define EMULATE_LEARNED(NAME, STORED, COMPUTED)                                                                          \
    extern "C" void run_golu_##NAME(                                                                                     \
        unsigned blocks, unsigned threads, const STORED* x, const STORED* gradient, const COMPUTED* alpha,               \
        const COMPUTED* beta, const COMPUTED* gamma, STORED* result, COMPUTED* sums, const long long* n) {               \
        blockDim = {threads, 1, 1};                                                                                      \
        for (unsigned b = 0; b < blocks; ++b)                                                                            \
            for (unsigned t = 0; t < threads; ++t) {                                                                     \
                blockIdx = {b, 0, 0};                                                                                    \
                threadIdx = {t, 0, 0};                                                                                   \
                golu_##NAME(x, gradient, alpha, beta, gamma, result, sums, n[0], n[1], n[2], n[3], n[4], n[5], n[6],     \
                            n[7], n[8], n[9], n[10]);                                                                    \
            }                                                                                                            \
    }
