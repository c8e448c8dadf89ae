// _core.Matrix: a single packed matrix, for the tests.
#include <nanobind/stl/string.h>

#include <algorithm>
#include <bit>
#include <vector>

#include "bindings/python.hpp"
#include "weights.hpp"

namespace model {
namespace {

class SingleMatrix {
 public:
    SingleMatrix(const std::string& kind, std::size_t rows, std::size_t columns, Input<std::uint8_t, 1> bytes,
                 std::size_t threads)
        : pool_(threads), arena_(pool_.size()), matrix_(kind_named(kind), rows, columns) {
        if (bytes.size() != matrix_.file_bytes()) {
            throw std::invalid_argument(std::to_string(bytes.size()) + " bytes, expected " +
                                        std::to_string(matrix_.file_bytes()));
        }
        arena_.add({&matrix_});
        arena_.allocate();
        matrix_.pack(bytes.data(), pool_);
    }

    void read(Output<float, 2> numbers) const {
        check_shape(numbers, matrix_.rows(), matrix_.columns());
        for (std::size_t row = 0; row < matrix_.rows(); ++row) {
            matrix_.read_row(row, numbers.data() + row * matrix_.columns());
        }
    }

    void multiply(Input<float, 2> vectors, Output<float, 2> results, const std::string& kernel_name) const {
        const Kernel& kernel = kernel_named(kernel_name);
        const std::size_t count = vectors.shape(0), columns = matrix_.columns();
        check_shape(vectors, count, columns);
        check_shape(results, count, matrix_.rows());
        if (const std::size_t most = matrix_.quantized() ? kernel.most_whole_vectors() : kernel.most_vectors;
            count > most || !std::has_single_bit(count)) {
            throw std::invalid_argument(std::to_string(count) + " vectors, expected a power of two up to " +
                                        std::to_string(most));
        }
        const std::size_t tiles = columns / kTile;
        std::vector<TileBytes> bytes(count * tiles);
        std::vector<TileScale> scales(count * tiles);
        const bool split = !matrix_.quantized() && kernel.splits(count, columns);
        std::vector<TileBytes> parts(split ? count * tiles * kFloatParts : 0);
        for (std::size_t i = 0; i < count; ++i) {
            const float* numbers = vectors.data() + i * columns;
            if (matrix_.quantized()) {
                kernel.quantize(numbers, tiles, count, bytes.data() + i, scales.data() + i);
            }
            if (split) kernel.split(numbers, tiles, count, parts.data() + i * kFloatParts);
        }
        multiply_parts(kernel, {vectors.data(), bytes.data(), scales.data(), parts.data(), columns}, count,
                       results.data());
    }

 private:
    void multiply_parts(const Kernel& kernel, const Vectors& vectors, std::size_t count, float* results) const {
        const auto product = kernel.products[static_cast<std::size_t>(matrix_.kind())][std::bit_width(count) - 1];
        for (const Part& part : matrix_.parts()) {
            for (std::size_t group = part.first; group < part.end; ++group) {
                float some[kMostVectors * kLanes];
                product(part.data + (group - part.first) * matrix_.stride(), vectors, some);
                const std::size_t end = std::min((group + 1) * kLanes, matrix_.rows());
                for (std::size_t i = 0; i < count; ++i) {
                    for (std::size_t row = group * kLanes; row < end; ++row) {
                        results[i * matrix_.rows() + row] = some[i * kLanes + row % kLanes];
                    }
                }
            }
        }
    }

    template <class Array>
    static void check_shape(const Array& array, std::size_t rows, std::size_t columns) {
        if (array.shape(0) != rows || array.shape(1) != columns) {
            throw std::invalid_argument("an array of shape [" + std::to_string(array.shape(0)) + ", " +
                                        std::to_string(array.shape(1)) + "], expected [" + std::to_string(rows) + ", " +
                                        std::to_string(columns) + "]");
        }
    }

    Pool pool_;
    Arena arena_;
    Matrix matrix_;
};

}  // namespace

void bind_matrix(nb::module_& m) {
    nb::class_<SingleMatrix>(m, "Matrix")
        .def(nb::init<const std::string&, std::size_t, std::size_t, Input<std::uint8_t, 1>, std::size_t>(),
             nb::arg("kind"), nb::arg("rows"), nb::arg("columns"), nb::arg("data"), nb::arg("threads") = 1)
        .def("read", &SingleMatrix::read, nb::arg("out"))
        .def("multiply", &SingleMatrix::multiply, nb::arg("vectors"), nb::arg("out"), nb::arg("kernel") = "");
}

}  // namespace model
