// _core.Cache and _core.Decoder.
#include <nanobind/stl/map.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <iterator>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "bindings/python.hpp"
#include "decoder.hpp"

namespace model {
namespace {

CacheKind cache_kind_named(const std::string& name) {
    constexpr const char* kNames[] = {"float16", "bfloat16", "int8", "float32"};
    for (std::size_t i = 0; i < std::size(kNames); ++i) {
        if (kNames[i] == name) return static_cast<CacheKind>(i);
    }
    throw std::invalid_argument("a cache cannot store " + name + ", only float32, float16, bfloat16 and int8");
}

void construct_cache(Cache* self, const std::string& kind, std::size_t layers, std::size_t kv_heads,
                     std::size_t head_dim, std::size_t sequences) {
    if (!layers || !kv_heads || !head_dim || !sequences) {
        throw std::invalid_argument("the sizes of a cache must be positive");
    }
    if (cache_kind_named(kind) == CacheKind::kI8 && head_dim > kWidestByteHead) {
        throw std::invalid_argument("a cache of int8 cannot store heads of " + std::to_string(head_dim) +
                                    " numbers, only up to " + std::to_string(kWidestByteHead));
    }
    new (self) Cache(cache_kind_named(kind), layers, kv_heads, head_dim, sequences);
}

void check_filled(const Cache& cache, const std::vector<std::size_t>& filled) {
    if (filled.size() != cache.sequences()) {
        throw std::invalid_argument(std::to_string(filled.size()) + " lengths for " +
                                    std::to_string(cache.sequences()) + " sequences");
    }
}

void reserve(Cache& self, std::size_t capacity, const std::vector<std::size_t>& filled) {
    check_filled(self, filled);
    const bpe::ReleasedGil released;
    self.reserve(capacity, filled);
}

void select(Cache& self, const std::vector<std::size_t>& sequences, const std::vector<std::size_t>& filled) {
    check_filled(self, filled);
    for (const std::size_t sequence : sequences) {
        if (sequence >= self.sequences()) {
            throw std::invalid_argument("sequence " + std::to_string(sequence) + " of a cache of " +
                                        std::to_string(self.sequences()));
        }
    }
    if (sequences.empty()) throw std::invalid_argument("a cache needs at least one sequence");
    const bpe::ReleasedGil released;
    self.select(sequences, filled);
}

void check_sequence(const Cache& self, std::size_t sequence) {
    if (sequence >= self.sequences())
        throw std::invalid_argument("the cache has no sequence " + std::to_string(sequence));
}

void resize(Cache& self, std::size_t sequence, std::size_t capacity, std::size_t filled) {
    check_sequence(self, sequence);
    if (filled > std::min(capacity, self.capacity(sequence))) {
        throw std::invalid_argument("a sequence cannot keep more positions than it has room for");
    }
    const bpe::ReleasedGil released;
    self.resize(sequence, capacity, filled);
}

void copy(Cache& self, std::size_t from, std::size_t to, std::size_t filled) {
    check_sequence(self, from);
    check_sequence(self, to);
    if (from == to || filled > std::min(self.capacity(from), self.capacity(to))) {
        throw std::invalid_argument("there is no room for " + std::to_string(filled) + " positions");
    }
    const bpe::ReleasedGil released;
    self.copy(from, to, filled);
}

void construct_decoder(Decoder* self, const ModelShape& shape, const std::map<std::string, std::string>& kinds,
                       std::size_t threads, const std::string& kernel) {
    const std::size_t layers = shape.layers;
    if (!shape.dim || !layers || !shape.heads || !shape.kv_heads || !shape.head_dim || !shape.hidden ||
        !shape.vocabulary || shape.heads % shape.kv_heads || shape.head_dim % 2 || shape.windows.size() != layers ||
        shape.tables.size() != layers || shape.experts.size() != layers) {
        throw std::invalid_argument("the sizes of the model do not fit each other");
    }
    for (const std::size_t experts : shape.experts) {
        if (experts && (!shape.expert_hidden || !shape.experts_per_token || shape.experts_per_token > experts)) {
            throw std::invalid_argument("the numbers of experts do not fit each other");
        }
    }
    Decoder::Kinds known;
    for (const auto& [name, kind] : kinds) known[name] = kind_named(kind);
    new (self) Decoder(shape, known, threads, kernel_named(kernel));
}

// Binds a choice as a property that has one of these names.
template <class Choice, std::size_t kCount>
void def_choice(nb::class_<ModelShape>& type, const char* name, Choice ModelShape::* field,
                const char* const (&names)[kCount]) {
    type.def_prop_rw(
        name, [&names, field](const ModelShape& self) { return names[static_cast<std::size_t>(self.*field)]; },
        [&names, field](ModelShape& self, const std::string& given) {
            for (std::size_t i = 0; i < kCount; ++i) {
                if (names[i] == given) {
                    self.*field = static_cast<Choice>(i);
                    return;
                }
            }
            throw std::invalid_argument("unknown choice " + given);
        });
}

void bind_shape(nb::module_& m) {
    static constexpr const char* kActivations[] = {"silu", "gelu", "gelu_tanh"};
    static constexpr const char* kHeadNorms[] = {"none", "head", "all"};
    nb::class_<ModelShape> shape(m, "DecoderShape");
    shape.def(nb::init<>())
        .def_rw("dim", &ModelShape::dim)
        .def_rw("layers", &ModelShape::layers)
        .def_rw("heads", &ModelShape::heads)
        .def_rw("kv_heads", &ModelShape::kv_heads)
        .def_rw("head_dim", &ModelShape::head_dim)
        .def_rw("hidden", &ModelShape::hidden)
        .def_rw("vocabulary", &ModelShape::vocabulary)
        .def_rw("epsilon", &ModelShape::epsilon)
        .def_rw("tied", &ModelShape::tied)
        .def_rw("query_bias", &ModelShape::query_bias)
        .def_rw("output_bias", &ModelShape::output_bias)
        .def_rw("feed_forward_bias", &ModelShape::feed_forward_bias)
        .def_rw("pre_norm", &ModelShape::pre_norm)
        .def_rw("post_norm", &ModelShape::post_norm)
        .def_rw("norm_offset", &ModelShape::norm_offset)
        .def_rw("attention_factor", &ModelShape::attention_factor)
        .def_rw("attention_softcap", &ModelShape::attention_softcap)
        .def_rw("logits_softcap", &ModelShape::logits_softcap)
        .def_rw("embedding_factor", &ModelShape::embedding_factor)
        .def_rw("residual_factor", &ModelShape::residual_factor)
        .def_rw("logits_divisor", &ModelShape::logits_divisor)
        .def_rw("expert_hidden", &ModelShape::expert_hidden)
        .def_rw("experts_per_token", &ModelShape::experts_per_token)
        .def_rw("normalize_experts", &ModelShape::normalize_experts)
        .def_rw("windows", &ModelShape::windows)
        .def_rw("tables", &ModelShape::tables)
        .def_rw("experts", &ModelShape::experts);
    def_choice(shape, "activation", &ModelShape::activation, kActivations);
    def_choice(shape, "head_norm", &ModelShape::head_norm, kHeadNorms);
}

void put(Decoder& self, const std::string& name, Input<std::uint8_t, 1> bytes) {
    const std::span<const std::uint8_t> given(bytes.data(), bytes.size());
    const bpe::ReleasedGil released;
    self.put(name, given);
}

void put_all(Decoder& self, const std::vector<std::pair<std::string, Input<std::uint8_t, 1>>>& tensors) {
    const bpe::ReleasedGil released;
    for (const auto& [name, bytes] : tensors) self.put(name, {bytes.data(), bytes.size()});
}

void forward(Decoder& self, Input<std::int64_t, 2> tokens, Cache& cache, Input<float, 3> rotation,
             Input<std::int64_t, 1> wanted, Output<float, 2> logits, std::size_t layers) {
    if (tokens.shape(1) != 3) throw std::invalid_argument("tokens must have the shape [tokens, 3]");
    std::vector<Token> given(tokens.shape(0));
    for (std::size_t i = 0; i < given.size(); ++i) {  // check() refuses negative numbers, which become huge
        const std::int64_t* own = tokens.data() + 3 * i;
        given[i] = {static_cast<std::size_t>(own[0]), static_cast<std::size_t>(own[1]),
                    static_cast<std::size_t>(own[2])};
    }
    const std::vector<std::size_t> numbers(wanted.data(), wanted.data() + wanted.size());
    if (rotation.shape(0) != self.shape().rotation_tables() || rotation.shape(2) != self.shape().head_dim) {
        throw std::invalid_argument("rotation must have the shape [tables, positions, head_dim]");
    }
    self.check(given, cache, rotation.shape(1), numbers);
    if (logits.shape(0) != numbers.size() || logits.shape(1) != self.shape().vocabulary) {
        throw std::invalid_argument("logits must have the shape [wanted, vocabulary]");
    }
    if (layers > self.shape().layers) {
        throw std::invalid_argument(std::to_string(layers) + " layers of a model of " +
                                    std::to_string(self.shape().layers));
    }
    const bpe::ReleasedGil released;
    self.forward(given, cache, rotation.data(), rotation.shape(1), numbers, logits.data(), layers);
}

}  // namespace

void bind_decoding(nb::module_& m) {
    bind_shape(m);
    nb::class_<Cache>(m, "Cache")
        .def("__init__", construct_cache, nb::arg("kind"), nb::arg("layers"), nb::arg("kv_heads"), nb::arg("head_dim"),
             nb::arg("sequences"))
        .def_prop_ro("sequences", &Cache::sequences)
        .def_prop_ro("capacity", nb::overload_cast<>(&Cache::capacity, nb::const_))
        .def_prop_ro("bytes", &Cache::bytes)
        .def("bytes_for", &Cache::sequence_bytes, nb::arg("capacity"))
        .def(
            "room",
            [](const Cache& self, std::size_t sequence) {
                check_sequence(self, sequence);
                return self.capacity(sequence);
            },
            nb::arg("sequence"))
        .def("reserve", reserve, nb::arg("capacity"), nb::arg("filled"))
        .def("resize", resize, nb::arg("sequence"), nb::arg("capacity"), nb::arg("filled"))
        .def("copy", copy, nb::arg("from_"), nb::arg("to"), nb::arg("filled"))
        .def("select", select, nb::arg("sequences"), nb::arg("filled"));

    nb::class_<Decoder>(m, "Decoder")
        .def("__init__", construct_decoder, nb::arg("shape"), nb::arg("kinds"), nb::arg("threads") = 1,
             nb::arg("kernel") = "")
        .def("put", put, nb::arg("name"), nb::arg("data"))
        .def("put_all", put_all, nb::arg("tensors"))
        .def("forward", forward, nb::arg("tokens"), nb::arg("cache"), nb::arg("rotation"), nb::arg("wanted"),
             nb::arg("logits"), nb::arg("layers") = 0)
        .def_prop_ro("bytes", &Decoder::bytes)
        .def_prop_ro("threads", &Decoder::threads)
        .def("sum_weights", &Decoder::sum_weights, nb::call_guard<bpe::ReleasedGil>());
}

}  // namespace model
