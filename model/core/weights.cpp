#include "weights.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <numeric>
#include <stdexcept>

#include "kernels/rounding.hpp"

namespace model {

constexpr std::size_t kLine = 64;  // bytes of a cache line

Matrix::Matrix(Kind kind, std::size_t rows, std::size_t columns)
    : kind_(kind), rows_(rows), columns_(columns), groups_(divided_up(rows, kLanes)) {
    const Format& format = format_of(kind);
    if (columns % format.block_columns) {
        throw std::invalid_argument("rows of " + std::to_string(columns) + " numbers, not a multiple of the " +
                                    std::string(format.name) + " block size " + std::to_string(format.block_columns));
    }
}

void Matrix::pack(const std::uint8_t* rows, Pool& pool) {
    const std::size_t row_bytes = format_of(kind_).row_bytes(columns_);
    std::atomic<bool> finite = true;
    pool.run([&](std::size_t thread) {
        for (std::size_t number = thread; number < parts_.size(); number += pool.size()) {
            const Part& part = parts_[number];
            for (std::size_t group = part.first; group < part.end; ++group) {
                const std::uint8_t* own[kLanes] = {};
                for (std::size_t lane = 0; lane < kLanes && group * kLanes + lane < rows_; ++lane) {
                    own[lane] = rows + (group * kLanes + lane) * row_bytes;
                }
                if (!pack_group(kind_, own, columns_, part.data + (group - part.first) * stride_)) finite = false;
            }
        }
    });
    if (!finite) throw std::invalid_argument("numbers or scales that are not finite (NaN or infinity)");
}

void Matrix::read_row(std::size_t row, float* numbers) const {
    const std::size_t group = row / kLanes;
    for (const Part& part : parts_) {
        if (group < part.end) {
            const std::uint8_t* data = part.data + (group - part.first) * stride_;
            return model::read_row(kind_, data, row % kLanes, columns_, numbers);
        }
    }
}

void Arena::add(std::vector<Matrix*> matrices) {
    std::size_t stride = 0;
    for (const Matrix* matrix : matrices) stride += matrix->group_bytes();
    for (Matrix* matrix : matrices) {
        matrix->stride_ = stride;
        matrix->parts_.resize(sizes_.size());
    }
    for (std::size_t i = 0; i < sizes_.size(); ++i) {
        std::size_t offset = sizes_[i];
        const std::size_t groups = matrices[0]->groups_;
        const std::size_t first = groups * i / sizes_.size(), end = groups * (i + 1) / sizes_.size();
        for (Matrix* matrix : matrices) {
            matrix->parts_[i] = {nullptr, first, end};
            slots_.push_back({matrix, i, offset});
            offset += matrix->group_bytes();
        }
        sizes_[i] += rounded_up((end - first) * stride, kLine);
    }
}

void Arena::allocate() {
    for (const std::size_t size : sizes_) memory_.push_back(take_pages(size));
    for (const Slot& slot : slots_) slot.matrix->parts_[slot.part].data = memory_[slot.part].get() + slot.offset;
}

std::size_t Arena::bytes() const { return std::accumulate(sizes_.begin(), sizes_.end(), std::size_t{0}); }

std::uint64_t Arena::sum(std::size_t part) const {
    constexpr std::size_t kWords = 32;  // that are added in parallel
    [[maybe_unused]] constexpr std::size_t kAhead = 4096;
    std::uint64_t sums[kWords] = {};
    for (std::size_t at = 0; at + sizeof sums <= sizes_[part]; at += sizeof sums) {
        std::uint64_t words[kWords];
#ifdef __GNUC__
        for (std::size_t i = 0; i < sizeof sums; i += kLine) {  // as the kernels prefetch
            __builtin_prefetch(memory_[part].get() + std::min(at + kAhead + i, sizes_[part]), 0, 2);
        }
#endif
        std::memcpy(words, memory_[part].get() + at, sizeof words);
        for (std::size_t i = 0; i < kWords; ++i) sums[i] += words[i];
    }
    return std::accumulate(sums, sums + kWords, std::uint64_t{0});
}

}  // namespace model
