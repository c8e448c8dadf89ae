// What the training of a model consists of, in float32: products of matrices of any layout, and what stands between
// them. Each processor has its own way; all give the same but for rounding.
#pragma once

#include <cstddef>

namespace model {

// A matrix by its strides, so that a transposed one is another view of the same numbers, each of which is multiplied
// with the scale of its row and of its column where there are such.
struct View {
    const float* numbers;
    std::size_t row_stride, column_stride;
    const float* row_scales = nullptr;
    const float* column_scales = nullptr;

    View transposed() const { return {numbers, column_stride, row_stride, column_scales, row_scales}; }
};

struct Training {
    // A product is made in tiles of so many rows and columns, from copies of the matrices that are read in order.
    std::size_t rows, columns;
    // Rows `first` on of columns [begin, begin + depth): to [depth, rows]; of those that are not there, zeros.
    void (*pack_left)(const View& view, std::size_t first, std::size_t count, std::size_t begin, std::size_t depth,
                      float* to);
    // Columns `first` on of rows [begin, begin + depth): to [depth, columns].
    void (*pack_right)(const View& view, std::size_t first, std::size_t count, std::size_t begin, std::size_t depth,
                       float* to);
    // results [rows, columns], the rows `stride` apart = left [depth, rows] times right [depth, columns] (+ results)
    void (*multiply)(std::size_t depth, const float* left, const float* right, float* results, std::size_t stride,
                     bool add);

    float (*dot)(const float* x, const float* y, std::size_t size);
    // results = silu(gate) * up
    void (*gate)(const float* gate, const float* up, std::size_t size, float* results);
    // The slopes of gate and up, given that of their result, whose place the slope of up takes; and the result anew.
    void (*gate_slopes)(const float* gate, const float* up, std::size_t size, float* results, float* gate_slope,
                        float* up_slope);
    // slope_of_x += the slope of x, given that of unit = x * inverse, which is 1 / root mean square of x
    void (*norm_slope)(const float* x, float inverse, const float* unit_slope, std::size_t size, float* slope_of_x);
    // Scores become softmax(factor * scores), with a factor above 0; gives the highest factor * score, and the sum of
    // exp(factor * score - the highest).
    void (*probabilities)(float* scores, std::size_t size, float factor, float* highest, float* total);
    // Slopes of probabilities become those of scores, as `probabilities` was given them.
    void (*score_slopes)(const float* probabilities, float* slopes, std::size_t size, float along, float factor);
    // to += factor * from
    void (*add)(const float* from, float factor, std::size_t size, float* to);
};

}  // namespace model
