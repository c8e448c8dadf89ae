// The matrices of a model, laid out so that each thread reads what it needs as one stream, in the order of use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/formats.hpp"
#include "pages.hpp"
#include "pool.hpp"

namespace model {

// Groups of rows that one thread multiplies with.
struct Part {
    std::uint8_t* data = nullptr;  // of the first group
    std::size_t first = 0, end = 0;
};

class Matrix {
 public:
    // Throws std::invalid_argument where rows are no whole blocks.
    Matrix(Kind kind, std::size_t rows, std::size_t columns);

    Kind kind() const { return kind_; }
    std::size_t rows() const { return rows_; }
    std::size_t columns() const { return columns_; }
    bool quantized() const { return format_of(kind_).quantized(); }
    std::size_t file_bytes() const { return rows_ * format_of(kind_).row_bytes(columns_); }
    std::size_t group_bytes() const { return format_of(kind_).group_bytes(columns_); }
    std::size_t stride() const { return stride_; }
    const std::vector<Part>& parts() const { return parts_; }

    // Takes rows as they are in a file: file_bytes() of them. Throws std::invalid_argument for a scale or a number that
    // is not finite.
    void pack(const std::uint8_t* rows, Pool& pool);

    void read_row(std::size_t row, float* numbers) const;

 private:
    friend class Arena;

    Kind kind_;
    std::size_t rows_, columns_, groups_;
    std::size_t stride_ = 0;  // from group to group
    std::vector<Part> parts_;
};

// The memory of matrices, one piece for each part.
class Arena {
 public:
    explicit Arena(std::size_t parts) : sizes_(parts) {}

    // Appends matrices, whose groups alternate; they have the same number of rows. They must stay where they are.
    void add(std::vector<Matrix*> matrices);

    // Takes the memory, when all have been added.
    void allocate();

    std::size_t bytes() const;

    // Adds all 64-bit words of a part: what it takes to read them and do no more.
    std::uint64_t sum(std::size_t part) const;

 private:
    struct Place {
        Matrix* matrix;
        std::size_t part, offset;
    };

    std::vector<std::size_t> sizes_;
    std::vector<Place> places_;
    std::vector<Pages> memory_;
};

}  // namespace model
