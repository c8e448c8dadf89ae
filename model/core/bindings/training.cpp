// _core.LayerShape and _core.LayerTrainer.
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <array>
#include <optional>

#include "bindings/python.hpp"
#include "layers.hpp"

namespace model {
namespace {

// Arrays of any shape; only their size is checked.
template <class T>
using Numbers = nb::ndarray<T, nb::c_contig, nb::device::cpu>;
using Given = Numbers<const float>;
using Results = Numbers<float>;
using Begins = std::optional<Numbers<const std::int64_t>>;

template <class Array>
auto checked(const Array& array, std::size_t size, const char* name) {
    if (array.size() != size) {
        throw std::invalid_argument(std::string(name) + " has " + std::to_string(array.size()) + " numbers, expected " +
                                    std::to_string(size));
    }
    return array.data();
}

// In the order of LayerWeights, which is that of a checkpoint.
template <class T>
LayerWeights<T> weights_of(const std::array<Numbers<T>, 9>& all, const LayerShape& shape) {
    const std::size_t in_queries = shape.dim * shape.queries(), in_keys = shape.dim * shape.keys();
    const std::size_t in_hidden = shape.dim * shape.hidden;
    const std::size_t sizes[] = {shape.dim, in_queries, in_keys,   in_keys,  in_queries,
                                 shape.dim, in_hidden,  in_hidden, in_hidden};
    T* numbers[9];
    for (std::size_t i = 0; i < 9; ++i) numbers[i] = checked(all[i], sizes[i], "a weight");
    return {numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5], numbers[6], numbers[7], numbers[8]};
}

// In the order of LayerStates.
template <class T>
LayerStates<T> states_of(const std::array<Numbers<T>, 9>& all, const LayerShape& shape) {
    const std::size_t sizes[] = {1, shape.queries(), shape.keys(), shape.keys(), shape.queries(), shape.dim,
                                 1, shape.hidden,    shape.hidden};
    T* numbers[9];
    for (std::size_t i = 0; i < 9; ++i) numbers[i] = checked(all[i], shape.tokens() * sizes[i], "a state");
    return {numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5], numbers[6], numbers[7], numbers[8]};
}

Positions positions_of(const Given& rotation, const Begins& begins, const LayerShape& shape) {
    const std::size_t rotations = rotation.size() / shape.head_dim;
    if (rotation.size() % shape.head_dim || (rotations != shape.time && rotations != shape.tokens())) {
        throw std::invalid_argument("rotation must have the shape [time, head_dim] or [tokens, head_dim]");
    }
    if (!begins) return {rotation.data(), rotations, nullptr};
    const std::int64_t* own = checked(*begins, shape.tokens(), "begins");
    for (std::size_t i = 0; i < shape.tokens(); ++i) {
        const std::size_t position = i % shape.time;
        if (own[i] < 0 || own[i] > static_cast<std::int64_t>(position)) {
            throw std::invalid_argument("begins contains " + std::to_string(own[i]) + " for the token at position " +
                                        std::to_string(position) + " of its row, expected 0 to " +
                                        std::to_string(position));
        }
    }
    return {rotation.data(), rotations, own};
}

void construct_shape(LayerShape* self, std::size_t batch, std::size_t time, std::size_t dim, std::size_t heads,
                     std::size_t kv_heads, std::size_t head_dim, std::size_t hidden, float epsilon) {
    if (!batch || !time || !dim || !heads || !kv_heads || !head_dim || !hidden || heads % kv_heads || head_dim % 2) {
        throw std::invalid_argument("the sizes of the layer do not fit each other");
    }
    new (self) LayerShape{batch, time, dim, heads, kv_heads, head_dim, hidden, epsilon};
}

void construct_trainer(LayerTrainer* self, std::size_t threads, const std::string& kernel, bool bfloat16) {
    const Kernel& chosen = kernel_named(kernel);
    if (bfloat16 && !chosen.has_bfloat16_training) {
        throw std::invalid_argument(std::string("the kernel ") + chosen.name + " does not train in bfloat16");
    }
    new (self) LayerTrainer(threads, bfloat16 ? chosen.bfloat16_training : chosen.training);
}

bool trains_in_bfloat16(const std::string& kernel) { return kernel_named(kernel).has_bfloat16_training; }

void forward_layer(LayerTrainer& self, const LayerShape& shape, const std::array<Given, 9>& weights,
                   const Given& rotation, const Begins& begins, const Given& x, const std::array<Results, 9>& states,
                   const Results& results) {
    const auto own_weights = weights_of(weights, shape);
    const Positions positions = positions_of(rotation, begins, shape);
    const auto own_states = states_of(states, shape);
    const std::size_t size = shape.tokens() * shape.dim;
    const float* input = checked(x, size, "x");
    float* to = checked(results, size, "results");
    const bpe::ReleasedGil released;
    self.forward(shape, own_weights, positions, input, own_states, to);
}

void backward_layer(LayerTrainer& self, const LayerShape& shape, const std::array<Given, 9>& weights,
                    const Given& rotation, const Begins& begins, const Given& x, const std::array<Given, 9>& states,
                    const Given& gradient, const Results& x_gradient, const std::array<Results, 9>& weight_gradients) {
    const auto own_weights = weights_of(weights, shape);
    const auto own_gradients = weights_of(weight_gradients, shape);
    const Positions positions = positions_of(rotation, begins, shape);
    const auto own_states = states_of(states, shape);
    const std::size_t size = shape.tokens() * shape.dim;
    const float *input = checked(x, size, "x"), *given = checked(gradient, size, "gradient");
    float* to = checked(x_gradient, size, "x_gradient");
    const bpe::ReleasedGil released;
    self.backward(shape, own_weights, positions, input, own_states, given, to, own_gradients);
}

double loss(LayerTrainer& self, Input<float, 2> hidden, Input<float, 2> head, Input<std::int64_t, 1> targets,
            std::size_t logits, Output<float, 2> hidden_gradient, std::optional<Output<float, 2>> head_gradient) {
    const std::size_t tokens = hidden.shape(0), dim = hidden.shape(1), vocabulary = head.shape(0);
    if (!vocabulary || head.shape(1) != dim || targets.shape(0) != tokens || hidden_gradient.size() != hidden.size() ||
        (head_gradient && head_gradient->size() != head.size())) {
        throw std::invalid_argument("the shapes of the arrays do not fit each other");
    }
    for (std::size_t i = 0; i < tokens; ++i) {
        if (targets.data()[i] >= static_cast<std::int64_t>(vocabulary)) {
            throw std::invalid_argument("the target " + std::to_string(targets.data()[i]) + ", but there are " +
                                        std::to_string(vocabulary) + " ids");
        }
    }
    float* head_to = head_gradient ? head_gradient->data() : nullptr;
    const bpe::ReleasedGil released;
    return self.loss(hidden.data(), head.data(), targets.data(), tokens, dim, vocabulary, logits,
                     hidden_gradient.data(), head_to);
}

void multiply(LayerTrainer& self, Input<float, 2> left, Input<float, 2> right, Output<float, 2> results,
              bool left_transposed, bool right_transposed) {
    const std::size_t rows = left.shape(left_transposed), inner = left.shape(!left_transposed);
    const std::size_t columns = right.shape(!right_transposed);
    if (!left.size() || !right.size() || right.shape(right_transposed) != inner || results.shape(0) != rows ||
        results.shape(1) != columns) {
        throw std::invalid_argument("the shapes of the matrices do not fit each other");
    }
    const View first{left.data(), left.shape(1), 1}, second{right.data(), right.shape(1), 1};
    const bpe::ReleasedGil released;
    self.multiply(left_transposed ? first.transposed() : first, right_transposed ? second.transposed() : second, rows,
                  inner, columns, results.data());
}

}  // namespace

void bind_training(nb::module_& m) {
    nb::class_<LayerShape>(m, "LayerShape")
        .def("__init__", construct_shape, nb::arg("batch"), nb::arg("time"), nb::arg("dim"), nb::arg("heads"),
             nb::arg("kv_heads"), nb::arg("head_dim"), nb::arg("hidden"), nb::arg("epsilon"));

    m.def("trains_in_bfloat16", trains_in_bfloat16, nb::arg("kernel") = "");

    nb::class_<LayerTrainer>(m, "LayerTrainer")
        .def("__init__", construct_trainer, nb::arg("threads") = 1, nb::arg("kernel") = "", nb::arg("bfloat16") = false)
        .def_prop_ro("threads", &LayerTrainer::threads)
        .def_prop_ro("bytes", &LayerTrainer::bytes)
        .def("forward", forward_layer, nb::arg("shape"), nb::arg("weights"), nb::arg("rotation"),
             nb::arg("begins").none(), nb::arg("x"), nb::arg("states"), nb::arg("results"))
        .def("backward", backward_layer, nb::arg("shape"), nb::arg("weights"), nb::arg("rotation"),
             nb::arg("begins").none(), nb::arg("x"), nb::arg("states"), nb::arg("gradient"), nb::arg("x_gradient"),
             nb::arg("weight_gradients"))
        .def("loss", loss, nb::arg("hidden"), nb::arg("head"), nb::arg("targets"), nb::arg("logits"),
             nb::arg("hidden_gradient"), nb::arg("head_gradient").none())
        .def("multiply", multiply, nb::arg("left"), nb::arg("right"), nb::arg("results"),
             nb::arg("left_transposed") = false, nb::arg("right_transposed") = false);
}

}  // namespace model
