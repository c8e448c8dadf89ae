// Kernels for NEON with products of bytes (dotprod), called only on processors that have them.
#include <arm_neon.h>

#if defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "kernels/make_kernel.hpp"

namespace model {
namespace {

template <class T>
struct Four {
    T a, b, c, d;  // four lanes each
};

template <class Operation, class T, class... Others>
auto each(Operation operation, const Four<T>& first, const Others&... others) {
    return Four<decltype(operation(first.a, others.a...))>{
        operation(first.a, others.a...), operation(first.b, others.b...), operation(first.c, others.c...),
        operation(first.d, others.d...)};
}

// Returns make(0), make(4), make(8) and make(12).
template <class Make>
auto made(const Make& make) {
    return Four<decltype(make(0))>{make(0), make(4), make(8), make(12)};
}

struct Neon {
    using F = Four<float32x4_t>;
    using I = Four<int32x4_t>;
    static constexpr std::size_t kSums = 4, kQueries = 4, kAtOnce = 2;
    static constexpr std::size_t kSizes = 5;
    static constexpr std::size_t kTileRows = 6, kTileWide = 1;
    static constexpr bool kSignedBytes = true;

    static void prefetch(const void* place) { __builtin_prefetch(place); }
    static F set(float number) {
        return made([=](int) { return vdupq_n_f32(number); });
    }
    static F load(const float* numbers) {
        return made([=](int i) { return vld1q_f32(numbers + i); });
    }
    static F load(const Half* numbers) {
        return made([=](int i) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&numbers[i].bits))); });
    }
    static F load(const BFloat16* numbers) {
        return made([=](int i) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(&numbers[i].bits), 16)); });
    }
    static F load(const std::int8_t* numbers) {
        const int8x16_t sixteen = vld1q_s8(numbers);
        const int16x8_t low = vmovl_s8(vget_low_s8(sixteen)), high = vmovl_s8(vget_high_s8(sixteen));
        return to_floats({vmovl_s16(vget_low_s16(low)), vmovl_s16(vget_high_s16(low)), vmovl_s16(vget_low_s16(high)),
                          vmovl_s16(vget_high_s16(high))});
    }
    static void store(float* numbers, const F& x) {
        vst1q_f32(numbers, x.a), vst1q_f32(numbers + 4, x.b), vst1q_f32(numbers + 8, x.c), vst1q_f32(numbers + 12, x.d);
    }
    static void store_halves(Half* numbers, const F& x) {
        const auto halves = each([](float32x4_t a) { return vreinterpret_u16_f16(vcvt_f16_f32(a)); }, x);
        std::uint16_t* bits = &numbers->bits;
        vst1_u16(bits, halves.a), vst1_u16(bits + 4, halves.b), vst1_u16(bits + 8, halves.c),
            vst1_u16(bits + 12, halves.d);
    }

    static F add(const F& x, const F& y) {
        return each([](float32x4_t a, float32x4_t b) { return vaddq_f32(a, b); }, x, y);
    }
    static F mul(const F& x, const F& y) {
        return each([](float32x4_t a, float32x4_t b) { return vmulq_f32(a, b); }, x, y);
    }
    static F div(const F& x, const F& y) {
        return each([](float32x4_t a, float32x4_t b) { return vdivq_f32(a, b); }, x, y);
    }
    static F max(const F& x, const F& y) {
        return each([](float32x4_t a, float32x4_t b) { return vmaxq_f32(a, b); }, x, y);
    }
    static F min(const F& x, const F& y) {
        return each([](float32x4_t a, float32x4_t b) { return vminq_f32(a, b); }, x, y);
    }
    static F fma(const F& x, const F& y, const F& z) {
        return each([](float32x4_t a, float32x4_t b, float32x4_t c) { return vfmaq_f32(c, a, b); }, x, y, z);
    }
    static F absolute(const F& x) {
        return each([](float32x4_t a) { return vabsq_f32(a); }, x);
    }
    static float root(float x) { return vget_lane_f32(vsqrt_f32(vdup_n_f32(x)), 0); }
    static float sum(const F& x) { return vaddvq_f32(vaddq_f32(vaddq_f32(x.a, x.b), vaddq_f32(x.c, x.d))); }
    static float largest(const F& x) { return vmaxvq_f32(vmaxq_f32(vmaxq_f32(x.a, x.b), vmaxq_f32(x.c, x.d))); }

    static I zeros() { return set_integers(0); }
    static I set_integers(std::int32_t number) {
        return made([=](int) { return vdupq_n_s32(number); });
    }
    static I load_bytes(const std::uint8_t* bytes) {
        return made([=](int i) { return vreinterpretq_s32_u8(vld1q_u8(bytes + 4 * i)); });
    }
    static void store_bytes(std::int8_t* bytes, const I& x) {
        const auto halves = each([](int32x4_t a) { return vmovn_s32(a); }, x);
        vst1q_s8(bytes,
                 vcombine_s8(vmovn_s16(vcombine_s16(halves.a, halves.b)), vmovn_s16(vcombine_s16(halves.c, halves.d))));
    }
    static I add(const I& x, const I& y) {
        return each([](int32x4_t a, int32x4_t b) { return vaddq_s32(a, b); }, x, y);
    }
    static I subtract(const I& x, const I& y) {
        return each([](int32x4_t a, int32x4_t b) { return vsubq_s32(a, b); }, x, y);
    }
    static I bit_or(const I& x, const I& y) {
        return each([](int32x4_t a, int32x4_t b) { return vorrq_s32(a, b); }, x, y);
    }
    static I bit_xor(const I& x, std::uint32_t mask) {
        return each([=](int32x4_t a) { return veorq_s32(a, vreinterpretq_s32_u32(vdupq_n_u32(mask))); }, x);
    }
    static I bit_and(const I& x, std::int32_t mask) {
        return each([=](int32x4_t a) { return vandq_s32(a, vdupq_n_s32(mask)); }, x);
    }
    template <int kBits>
    static I shift_left(const I& x) {
        return each([](int32x4_t a) { return vshlq_n_s32(a, kBits); }, x);
    }
    template <int kBits>
    static I shift_right(const I& x) {
        return each([](int32x4_t a) { return vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(a), kBits)); }, x);
    }
    template <int kBits>
    static I shift_right_signed(const I& x) {
        return each([](int32x4_t a) { return vshrq_n_s32(a, kBits); }, x);
    }
    static F to_floats(const I& x) {
        return each([](int32x4_t a) { return vcvtq_f32_s32(a); }, x);
    }
    static I to_integers(const F& x) {
        return each([](float32x4_t a) { return vcvtnq_s32_f32(a); }, x);
    }
    static F times_power_of_two(const F& x, const I& power) {
        return each(
            [](float32x4_t a, int32x4_t n) {
                return vmulq_f32(a, vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23)));
            },
            x, power);
    }
    static I dot(const I& sums, const I& x, const std::int8_t* bytes) {
        std::int32_t four;
        std::memcpy(&four, bytes, sizeof four);
        const int8x16_t numbers = vreinterpretq_s8_s32(vdupq_n_s32(four));
        return each([=](int32x4_t sum, int32x4_t a) { return vdotq_s32(sum, vreinterpretq_s8_s32(a), numbers); }, sums,
                    x);
    }
};

}  // namespace

const Kernel& neon_kernel() {
    static const Kernel kernel = make_kernel<Neon>("neon");
    return kernel;
}

bool can_neon() {
#if defined(__linux__)
    return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#else
    return true;  // every Apple processor that runs macOS on ARM
#endif
}

}  // namespace model
