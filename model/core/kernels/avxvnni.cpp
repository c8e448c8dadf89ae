// Kernels for AVX2 and AVX-VNNI, which most processors without AVX-512 have since 2021. They differ from the avx2
// kernels in products of quantized weights: one instruction multiplies integers and adds the products to a sum.
#include "kernels/avx2_lanes.hpp"

namespace model {
namespace {

struct AvxVnni : Avx2 {};

// Inline assembly, because GCC 12 stores each sum after the intrinsic.
inline __m256i add_products(__m256i sum, __m256i x, __m256i y) {
    asm("%{vex%} vpdpwssd %2, %1, %0" : "+x"(sum) : "x"(x), "x"(y));
    return sum;
}

}  // namespace

// The instruction takes five cycles, and two start in each: eight sums would wait for it.
template <>
struct Integers<AvxVnni> : IntegersOf16<add_products, true> {};

const Kernel& avxvnni_kernel() {
    static const Kernel kernel = [] {
        Kernel made = avx2_kernel();
        made.name = "avxvnni";
        const auto set = [&]<class Tile, std::size_t... kPower>(Tile, std::index_sequence<kPower...>) {
            GroupProduct* const own = made.products[static_cast<std::size_t>(Tile::kKind)];
            ((own[kPower] = multiply_tiles<AvxVnni, Tile, std::size_t{1} << kPower>), ...);
        };
        const auto set_all = [&](auto... tiles) { (set(tiles, std::make_index_sequence<AvxVnni::kSizes>()), ...); };
        using V = AvxVnni;
        set_all(Q4_0<V>(), Q4_1<V>(), Q5_0<V>(), Q5_1<V>(), Q8_0<V>(), Q4_K<V>(), Q5_K<V>(), Q6_K<V>());
        return made;
    }();
    return kernel;
}

}  // namespace model
