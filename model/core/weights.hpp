// The weight matrices of a model, laid out so that each thread reads its share as one stream, in the order of use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/packed_weights.hpp"
#include "pages.hpp"
#include "pool.hpp"

namespace model {

// The groups of rows that belong to one thread.
struct Part {
    std::uint8_t* data = nullptr;  // the first group
    std::size_t first = 0, end = 0;
};

class Matrix {
 public:
    // Throws std::invalid_argument when `columns` is not a multiple of the block size.
    Matrix(Kind kind, std::size_t rows, std::size_t columns);

    Kind kind() const { return kind_; }
    std::size_t rows() const { return rows_; }
    std::size_t columns() const { return columns_; }
    bool quantized() const { return format_of(kind_).quantized(); }
    std::size_t file_bytes() const { return rows_ * format_of(kind_).row_bytes(columns_); }
    std::size_t group_bytes() const { return format_of(kind_).group_bytes(columns_); }
    std::size_t stride() const { return stride_; }
    const std::vector<Part>& parts() const { return parts_; }

    // Packs rows stored as in a file, file_bytes() in all. Throws std::invalid_argument when a scale or an unquantized
    // number is not finite.
    void pack(const std::uint8_t* rows, Pool& pool);

    // Dequantizes a row to [columns].
    void read_row(std::size_t row, float* numbers) const;

 private:
    friend class Arena;

    Kind kind_;
    std::size_t rows_, columns_, groups_;
    std::size_t stride_ = 0;  // bytes from one group to the next
    std::vector<Part> parts_;
};

// The memory of all matrices: one allocation per part, that is, per thread.
class Arena {
 public:
    explicit Arena(std::size_t parts) : sizes_(parts) {}

    // Appends matrices with the same number of rows, whose groups alternate. The arena keeps the pointers.
    void add(std::vector<Matrix*> matrices);

    // Allocates the memory. Call it once, after all matrices have been added.
    void allocate();

    std::size_t bytes() const;

    // Adds up all 64-bit words of a part, to measure the time that reading the weights takes.
    std::uint64_t sum(std::size_t part) const;

 private:
    struct Slot {
        Matrix* matrix;
        std::size_t part, offset;
    };

    std::vector<std::size_t> sizes_;
    std::vector<Slot> slots_;
    std::vector<Pages> memory_;
};

}  // namespace model
