// The only file that knows Python.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <optional>
#include <stdexcept>

#include "decoder.hpp"
#include "layers.hpp"

namespace nb = nanobind;

namespace model {
namespace {

template <class T, std::size_t kDimensions>
using Input = nb::ndarray<const T, nb::ndim<kDimensions>, nb::c_contig, nb::device::cpu>;
template <class T, std::size_t kDimensions>
using Output = nb::ndarray<T, nb::ndim<kDimensions>, nb::c_contig, nb::device::cpu>;

Kind kind_named(const std::string& name) {
    for (std::size_t i = 0; i < kKinds; ++i) {
        if (kFormats[i].name == name) return static_cast<Kind>(i);
    }
    throw std::invalid_argument("there are no kernels for the type " + name);
}

CacheKind cache_kind_named(const std::string& name) {
    constexpr const char* kNames[] = {"float16", "bfloat16", "int8"};
    for (std::size_t i = 0; i < std::size(kNames); ++i) {
        if (kNames[i] == name) return static_cast<CacheKind>(i);
    }
    throw std::invalid_argument("there is no cache of " + name + ", only of float16, bfloat16 and int8");
}

const Kernel& kernel_named(const std::string& name) {
    for (const Kernel& kernel : kernels()) {
        if (name.empty() || name == kernel.name) return kernel;
    }
    throw std::invalid_argument("this processor has no kernel " + name);
}

std::vector<std::string> kernel_names() {
    std::vector<std::string> names;
    for (const Kernel& kernel : kernels()) names.push_back(kernel.name);
    return names;
}

// A matrix alone, for the tests.
class LoneMatrix {
 public:
    LoneMatrix(const std::string& kind, std::size_t rows, std::size_t columns, Input<std::uint8_t, 1> bytes,
               std::size_t threads)
        : pool_(threads), arena_(pool_.size()), matrix_(kind_named(kind), rows, columns) {
        if (bytes.size() != matrix_.file_bytes())
            throw std::invalid_argument("not as many bytes as the shape asks for");
        arena_.add({&matrix_});
        arena_.allocate();
        matrix_.pack(bytes.data(), pool_);
    }

    void read(Output<float, 2> numbers) const {
        expect(numbers, matrix_.rows(), matrix_.columns());
        for (std::size_t row = 0; row < matrix_.rows(); ++row) {
            matrix_.read_row(row, numbers.data() + row * matrix_.columns());
        }
    }

    void multiply(Input<float, 2> vectors, Output<float, 2> results, const std::string& kernel_name) const {
        const Kernel& kernel = kernel_named(kernel_name);
        const std::size_t count = vectors.shape(0), columns = matrix_.columns();
        expect(vectors, count, columns);
        expect(results, count, matrix_.rows());
        if (count > kernel.most_vectors || !std::has_single_bit(count)) {
            throw std::invalid_argument("not a power of two, up to " + std::to_string(kernel.most_vectors));
        }
        const std::size_t tiles = columns / kTile;
        std::vector<TileBytes> bytes(count * tiles * kernel.tile_bytes(count));
        std::vector<TileScale> scales(count * tiles);
        const bool wanted = matrix_.quantized() || count >= kernel.split_from;
        for (std::size_t i = 0; wanted && i < count; ++i) {
            kernel.quantize(vectors.data() + i * columns, tiles, count, bytes.data() + i * kernel.tile_bytes(count),
                            scales.data() + i);
        }
        const Vectors all{vectors.data(), bytes.data(), scales.data(), columns};
        const auto product = kernel.products[static_cast<std::size_t>(matrix_.kind())][std::bit_width(count) - 1];
        for (const Part& part : matrix_.parts()) {
            for (std::size_t group = part.first; group < part.end; ++group) {
                float some[kMostVectors * kLanes];
                product(part.data + (group - part.first) * matrix_.stride(), all, some);
                for (std::size_t i = 0; i < count; ++i) {
                    for (std::size_t row = group * kLanes; row < std::min((group + 1) * kLanes, matrix_.rows());
                         ++row) {
                        results.data()[i * matrix_.rows() + row] = some[i * kLanes + row % kLanes];
                    }
                }
            }
        }
    }

 private:
    template <class Array>
    static void expect(const Array& array, std::size_t rows, std::size_t columns) {
        if (array.shape(0) != rows || array.shape(1) != columns)
            throw std::invalid_argument("an array of another shape");
    }

    Pool pool_;
    Arena arena_;
    Matrix matrix_;
};

// --- training ---

template <class T>
using Numbers = nb::ndarray<T, nb::c_contig, nb::device::cpu>;
using Given = Numbers<const float>;
using Made = Numbers<float>;

template <class Array>
auto sized(const Array& array, std::size_t size, const char* name) {
    if (array.size() != size) {
        throw std::invalid_argument(std::string(name) + " of " + std::to_string(array.size()) + " numbers, expected " +
                                    std::to_string(size));
    }
    return array.data();
}

// As in a checkpoint: attention_norm, wq, wk, wv, wo, ffn_norm, w1, w2, w3.
template <class T>
LayerWeights<T> weights_of(const std::array<Numbers<T>, 9>& all, const LayerShape& shape) {
    const std::size_t in_queries = shape.dim * shape.queries(), in_keys = shape.dim * shape.keys();
    const std::size_t in_hidden = shape.dim * shape.hidden;
    const std::size_t sizes[] = {shape.dim, in_queries, in_keys,   in_keys,  in_queries,
                                 shape.dim, in_hidden,  in_hidden, in_hidden};
    T* numbers[9];
    for (std::size_t i = 0; i < 9; ++i) numbers[i] = sized(all[i], sizes[i], "a weight");
    return {numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5], numbers[6], numbers[7], numbers[8]};
}

// As in LayerStates.
template <class T>
LayerStates<T> states_of(const std::array<Numbers<T>, 9>& all, const LayerShape& shape) {
    const std::size_t sizes[] = {1, shape.queries(), shape.keys(), shape.keys(), shape.queries(), shape.dim,
                                 1, shape.hidden,    shape.hidden};
    T* numbers[9];
    for (std::size_t i = 0; i < 9; ++i) numbers[i] = sized(all[i], shape.tokens() * sizes[i], "a state");
    return {numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5], numbers[6], numbers[7], numbers[8]};
}

Places places_of(const Given& rotation, const std::optional<Numbers<const std::int64_t>>& begins,
                 const LayerShape& shape) {
    const std::size_t rotations = rotation.size() / shape.head_dim;
    if (rotation.size() % shape.head_dim || (rotations != shape.time && rotations != shape.tokens())) {
        throw std::invalid_argument("rotations are those of a row, or of all tokens");
    }
    if (!begins) return {rotation.data(), rotations, nullptr};
    const std::int64_t* own = sized(*begins, shape.tokens(), "begins");
    for (std::size_t i = 0; i < shape.tokens(); ++i) {
        if (own[i] < 0 || own[i] > static_cast<std::int64_t>(i % shape.time)) {
            throw std::invalid_argument("a token looks at itself, and at none before its row");
        }
    }
    return {rotation.data(), rotations, own};
}

std::vector<std::size_t> filled_of(const Cache& cache, const std::vector<std::size_t>& filled) {
    if (filled.size() != cache.texts()) throw std::invalid_argument("not as many lengths as texts");
    return filled;
}

}  // namespace

NB_MODULE(_core, m) {
    nb::set_leak_warnings(false);  // what lives until the interpreter ends is none
    m.doc() = "Native kernels for a Llama on a CPU. model.native is the interface.";
    m.def("kernels", kernel_names);
    m.attr("MOST_TOKENS") = Decoder::kMostTokens;
    std::map<std::string, std::size_t> kinds;
    for (const Format& format : kFormats) kinds[std::string(format.name)] = format.block_columns;
    m.attr("KINDS") = kinds;

    nb::class_<LoneMatrix>(m, "Matrix")
        .def(nb::init<const std::string&, std::size_t, std::size_t, Input<std::uint8_t, 1>, std::size_t>(),
             nb::arg("kind"), nb::arg("rows"), nb::arg("columns"), nb::arg("data"), nb::arg("threads") = 1)
        .def("read", &LoneMatrix::read, nb::arg("out"))
        .def("multiply", &LoneMatrix::multiply, nb::arg("vectors"), nb::arg("out"), nb::arg("kernel") = "");

    nb::class_<Cache>(m, "Cache")
        .def(
            "__init__",
            [](Cache* self, const std::string& kind, std::size_t layers, std::size_t kv_heads, std::size_t head_dim,
               std::size_t texts) {
                if (!layers || !kv_heads || !head_dim || !texts) throw std::invalid_argument("a cache of nothing");
                new (self) Cache(cache_kind_named(kind), layers, kv_heads, head_dim, texts);
            },
            nb::arg("kind"), nb::arg("layers"), nb::arg("kv_heads"), nb::arg("head_dim"), nb::arg("texts"))
        .def_prop_ro("texts", &Cache::texts)
        .def_prop_ro("capacity", &Cache::capacity)
        .def_prop_ro("bytes", &Cache::bytes)
        .def(
            "reserve",
            [](Cache& self, std::size_t capacity, const std::vector<std::size_t>& filled) {
                const auto kept = filled_of(self, filled);
                const nb::gil_scoped_release released;
                self.reserve(capacity, kept);
            },
            nb::arg("capacity"), nb::arg("filled"))
        .def(
            "select",
            [](Cache& self, const std::vector<std::size_t>& texts, const std::vector<std::size_t>& filled) {
                const auto kept = filled_of(self, filled);
                for (const std::size_t text : texts) {
                    if (text >= self.texts()) throw std::invalid_argument("there is no text " + std::to_string(text));
                }
                if (texts.empty()) throw std::invalid_argument("a cache of nothing");
                const nb::gil_scoped_release released;
                self.select(texts, kept);
            },
            nb::arg("texts"), nb::arg("filled"));

    nb::class_<LayerShape>(m, "LayerShape")
        .def(
            "__init__",
            [](LayerShape* self, std::size_t batch, std::size_t time, std::size_t dim, std::size_t heads,
               std::size_t kv_heads, std::size_t head_dim, std::size_t hidden, float epsilon) {
                if (!batch || !time || !dim || !heads || !kv_heads || !head_dim || !hidden || heads % kv_heads ||
                    head_dim % 2) {
                    throw std::invalid_argument("the numbers of the shape do not fit each other");
                }
                new (self) LayerShape{batch, time, dim, heads, kv_heads, head_dim, hidden, epsilon};
            },
            nb::arg("batch"), nb::arg("time"), nb::arg("dim"), nb::arg("heads"), nb::arg("kv_heads"),
            nb::arg("head_dim"), nb::arg("hidden"), nb::arg("epsilon"));

    nb::class_<Trainer>(m, "Trainer")
        .def(
            "__init__",
            [](Trainer* self, std::size_t threads, const std::string& kernel) {
                new (self) Trainer(threads, kernel_named(kernel));
            },
            nb::arg("threads") = 1, nb::arg("kernel") = "")
        .def_prop_ro("threads", &Trainer::threads)
        .def_prop_ro("bytes", &Trainer::bytes)
        .def(
            "forward",
            [](Trainer& self, const LayerShape& shape, const std::array<Given, 9>& weights, const Given& rotation,
               const std::optional<Numbers<const std::int64_t>>& begins, const Given& x,
               const std::array<Made, 9>& states, const Made& results) {
                const auto own = weights_of(weights, shape);
                const Places places = places_of(rotation, begins, shape);
                const auto made = states_of(states, shape);
                const float* given = sized(x, shape.tokens() * shape.dim, "x");
                float* to = sized(results, shape.tokens() * shape.dim, "results");
                const nb::gil_scoped_release released;
                self.forward(shape, own, places, given, made, to);
            },
            nb::arg("shape"), nb::arg("weights"), nb::arg("rotation"), nb::arg("begins").none(), nb::arg("x"),
            nb::arg("states"), nb::arg("results"))
        .def(
            "backward",
            [](Trainer& self, const LayerShape& shape, const std::array<Given, 9>& weights, const Given& rotation,
               const std::optional<Numbers<const std::int64_t>>& begins, const Given& x,
               const std::array<Given, 9>& states, const Given& slope, const Made& x_slope,
               const std::array<Made, 9>& slopes) {
                const auto own = weights_of(weights, shape);
                const auto made = weights_of(slopes, shape);
                const Places places = places_of(rotation, begins, shape);
                const auto kept = states_of(states, shape);
                const std::size_t size = shape.tokens() * shape.dim;
                const float *input = sized(x, size, "x"), *given = sized(slope, size, "the slope");
                float* to = sized(x_slope, size, "the slope of x");
                const nb::gil_scoped_release released;
                self.backward(shape, own, places, input, kept, given, to, made);
            },
            nb::arg("shape"), nb::arg("weights"), nb::arg("rotation"), nb::arg("begins").none(), nb::arg("x"),
            nb::arg("states"), nb::arg("slope"), nb::arg("x_slope"), nb::arg("slopes"))
        .def(
            "loss",
            [](Trainer& self, Input<float, 2> hidden, Input<float, 2> head, Input<std::int64_t, 1> targets,
               std::size_t logits, Output<float, 2> hidden_slope, std::optional<Output<float, 2>> head_slope) {
                const std::size_t tokens = hidden.shape(0), dim = hidden.shape(1), vocabulary = head.shape(0);
                if (!vocabulary || head.shape(1) != dim || targets.shape(0) != tokens ||
                    hidden_slope.size() != hidden.size() || (head_slope && head_slope->size() != head.size())) {
                    throw std::invalid_argument("arrays whose shapes do not fit each other");
                }
                for (std::size_t i = 0; i < tokens; ++i) {
                    if (targets.data()[i] >= static_cast<std::int64_t>(vocabulary)) {
                        throw std::invalid_argument("the target " + std::to_string(targets.data()[i]) + ", but there " +
                                                    "are " + std::to_string(vocabulary) + " ids");
                    }
                }
                float* head_to = head_slope ? head_slope->data() : nullptr;
                const nb::gil_scoped_release released;
                return self.loss(hidden.data(), head.data(), targets.data(), tokens, dim, vocabulary, logits,
                                 hidden_slope.data(), head_to);
            },
            nb::arg("hidden"), nb::arg("head"), nb::arg("targets"), nb::arg("logits"), nb::arg("hidden_slope"),
            nb::arg("head_slope").none())
        .def(
            "multiply",
            [](Trainer& self, Input<float, 2> left, Input<float, 2> right, Output<float, 2> results,
               bool left_transposed, bool right_transposed) {
                const std::size_t rows = left.shape(left_transposed), inner = left.shape(!left_transposed);
                const std::size_t columns = right.shape(!right_transposed);
                if (!left.size() || !right.size() || right.shape(right_transposed) != inner ||
                    results.shape(0) != rows || results.shape(1) != columns) {
                    throw std::invalid_argument("matrices whose shapes do not fit each other");
                }
                const View first{left.data(), left.shape(1), 1}, second{right.data(), right.shape(1), 1};
                const nb::gil_scoped_release released;
                self.multiply(left_transposed ? first.transposed() : first,
                              right_transposed ? second.transposed() : second, rows, inner, columns, results.data());
            },
            nb::arg("left"), nb::arg("right"), nb::arg("results"), nb::arg("left_transposed") = false,
            nb::arg("right_transposed") = false);

    nb::class_<Decoder>(m, "Decoder")
        .def(
            "__init__",
            [](Decoder* self, std::size_t dim, std::size_t layers, std::size_t heads, std::size_t kv_heads,
               std::size_t head_dim, std::size_t hidden, std::size_t vocabulary, float epsilon, bool tied,
               bool query_bias, bool output_bias, const std::map<std::string, std::string>& kinds, std::size_t threads,
               const std::string& kernel) {
                if (!dim || !layers || !heads || !kv_heads || !head_dim || !hidden || !vocabulary || heads % kv_heads ||
                    head_dim % 2) {
                    throw std::invalid_argument("the numbers of the shape do not fit each other");
                }
                std::map<std::string, Kind> known;
                for (const auto& [name, kind] : kinds) known[name] = kind_named(kind);
                const Shape shape{dim,        layers,  heads, kv_heads,   head_dim,   hidden,
                                  vocabulary, epsilon, tied,  query_bias, output_bias};
                new (self) Decoder(shape, known, threads, kernel_named(kernel));
            },
            nb::kw_only(), nb::arg("dim"), nb::arg("layers"), nb::arg("heads"), nb::arg("kv_heads"),
            nb::arg("head_dim"), nb::arg("hidden"), nb::arg("vocabulary"), nb::arg("epsilon"), nb::arg("tied"),
            nb::arg("query_bias"), nb::arg("output_bias"), nb::arg("kinds"), nb::arg("threads") = 1,
            nb::arg("kernel") = "")
        .def(
            "put",
            [](Decoder& self, const std::string& name, Input<std::uint8_t, 1> bytes) {
                const std::span<const std::uint8_t> given(bytes.data(), bytes.size());
                const nb::gil_scoped_release released;
                self.put(name, given);
            },
            nb::arg("name"), nb::arg("data"))
        .def(
            "forward",
            [](Decoder& self, Input<std::int64_t, 2> tokens, Cache& cache, Input<float, 2> rotation,
               Input<std::int64_t, 1> wanted, Output<float, 2> logits) {
                if (tokens.shape(1) != 3) throw std::invalid_argument("tokens are [tokens, 3]");
                std::vector<Token> given(tokens.shape(0));
                for (std::size_t i = 0; i < given.size(); ++i) {  // what is negative becomes too large
                    const std::int64_t* own = tokens.data() + 3 * i;
                    given[i] = {static_cast<std::size_t>(own[0]), static_cast<std::size_t>(own[1]),
                                static_cast<std::size_t>(own[2])};
                }
                const std::vector<std::size_t> numbers(wanted.data(), wanted.data() + wanted.size());
                if (rotation.shape(1) != self.shape().head_dim)
                    throw std::invalid_argument("rotation of another head_dim");
                self.check(given, cache, rotation.shape(0), numbers);
                if (logits.shape(0) != numbers.size() || logits.shape(1) != self.shape().vocabulary) {
                    throw std::invalid_argument("logits are [wanted, vocabulary]");
                }
                const nb::gil_scoped_release released;
                self.forward(given, cache, rotation.data(), numbers, logits.data());
            },
            nb::arg("tokens"), nb::arg("cache"), nb::arg("rotation"), nb::arg("wanted"), nb::arg("logits"))
        .def_prop_ro("bytes", &Decoder::bytes)
        .def_prop_ro("threads", &Decoder::threads)
        .def("sum", &Decoder::sum, nb::call_guard<nb::gil_scoped_release>());
}

}  // namespace model
