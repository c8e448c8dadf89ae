// Products of float32 matrices on all threads, for training.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include "floats.hpp"
#include "kernels/kernels.hpp"
#include "pool.hpp"

namespace model {

// Packs rows of the left matrix, rows [first, end) and columns [begin, begin + depth), to strips.
void pack_rows(const TrainingKernel& kernel, const View& left, std::size_t first, std::size_t end, std::size_t begin,
               std::size_t depth, float* to);

// Multiplies matrices on the threads of a pool. One caller at a time.
class Gemm {
 public:
    // The right-hand matrix of a product, and where its results go.
    struct Product {
        View right;  // [inner, columns]
        std::size_t columns;
        float* results;  // [rows, columns]
        bool add = false;
    };
    using Rows = std::function<void(std::size_t first, std::size_t end)>;

    Gemm(const TrainingKernel& kernel, Pool& pool);

    // Multiplies left [rows, inner] with the right-hand matrix of each product. Calls done(first, end) with rows whose
    // results are complete.
    void multiply(const View& left, std::size_t rows, std::size_t inner, std::span<const Product> products,
                  const Rows& done = {});

    // Calls work(first, end) for some rows at a time, on all threads.
    void in_rows(std::size_t rows, const Rows& work);

    std::size_t bytes() const;  // of buffers that are kept between calls

 private:
    const TrainingKernel& kernel_;
    Pool& pool_;
    Floats right_;              // packed by all threads
    std::vector<Floats> left_;  // packed by each thread
};

}  // namespace model
