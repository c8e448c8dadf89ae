#include "gemm.hpp"

#include <algorithm>
#include <atomic>

#include "kernels/rounding.hpp"

namespace model {

namespace {

// Rows and columns are packed this many numbers at a time, so that the columns of a tile fit in the L1 cache.
constexpr std::size_t kDepth = 320;
// Columns packed at a time by all threads, and rows packed at a time by each, so that the rows fit in the L2 cache.
constexpr std::size_t kColumns = 2048, kRows = 96;
// The rows of a product are cut into at least this many pieces per thread, to keep all threads busy to the end.
constexpr std::size_t kShares = 4;

// A panel is as many columns of a right-hand matrix as a tile is wide.
struct Panel {
    const Gemm::Product* product;
    std::size_t first, columns;
};

std::vector<Panel> panels_of(std::span<const Gemm::Product> products, std::size_t width) {
    std::vector<Panel> panels;
    for (const Gemm::Product& product : products) {
        for (std::size_t first = 0; first < product.columns; first += width) {
            panels.push_back({&product, first, std::min(width, product.columns - first)});
        }
    }
    return panels;
}

}  // namespace

void pack_rows(const TrainingKernel& kernel, const View& left, std::size_t first, std::size_t end, std::size_t begin,
               std::size_t depth, float* to) {
    for (; first < end; first += kernel.rows, to += kernel.strip_size(depth)) {
        kernel.pack_left(left, first, std::min(kernel.rows, end - first), begin, depth, to);
    }
}

Gemm::Gemm(const TrainingKernel& kernel, Pool& pool) : kernel_(kernel), pool_(pool), left_(pool.size()) {}

std::size_t Gemm::bytes() const {
    std::size_t numbers = right_.capacity();
    for (const Floats& own : left_) numbers += own.capacity();
    return numbers * sizeof(float);
}

void Gemm::multiply(const View& left, std::size_t rows, std::size_t inner, std::span<const Product> products,
                    const Rows& done) {
    const std::vector<Panel> panels = panels_of(products, kernel_.columns);
    const std::size_t depths = divided_up(inner, kDepth);
    const std::size_t depth = rounded_up(divided_up(inner, depths), kernel_.step);
    const std::size_t most = kColumns / kernel_.columns;
    const std::size_t share = divided_up(rows, kShares * pool_.size());
    const std::size_t some = std::min(kRows, rounded_up(share, kernel_.rows));
    const std::size_t panel_size = kernel_.panel_size(depth);
    right_.resize(std::max(right_.size(), std::min(most, panels.size()) * panel_size));
    std::atomic<std::size_t> next;
    pool_.run([&](std::size_t thread) {
        Floats& own = left_[thread];
        own.resize(std::max(own.size(), divided_up(kRows, kernel_.rows) * kernel_.strip_size(depth)));
        for (std::size_t at = 0; at < panels.size(); at += most) {
            const std::span<const Panel> these(panels.data() + at, std::min(most, panels.size() - at));
            for (std::size_t begin = 0; begin < inner; begin += depth) {
                const std::size_t size = std::min(depth, inner - begin);
                for (std::size_t i = thread; i < these.size(); i += pool_.size()) {
                    kernel_.pack_right(these[i].product->right, these[i].first, these[i].columns, begin, size,
                                       right_.data() + i * panel_size);
                }
                if (thread == 0) next = 0;
                pool_.barrier();
                for (std::size_t first; (first = next.fetch_add(some)) < rows;) {
                    const std::size_t end = std::min(rows, first + some);
                    pack_rows(kernel_, left, first, end, begin, size, own.data());
                    for (std::size_t i = 0; i < these.size(); ++i) {
                        const Product& product = *these[i].product;
                        float* to = product.results + first * product.columns + these[i].first;
                        kernel_.multiply(own.data(), end - first, size, right_.data() + i * panel_size,
                                         these[i].columns, to, product.columns, begin || product.add);
                    }
                    if (done && at + these.size() == panels.size() && begin + size == inner) done(first, end);
                }
                pool_.barrier();
            }
        }
    });
}

void Gemm::in_rows(std::size_t rows, const Rows& work) {
    std::atomic<std::size_t> next = 0;
    pool_.run([&](std::size_t) {
        for (std::size_t first; (first = next.fetch_add(kRows)) < rows;) work(first, std::min(rows, first + kRows));
    });
}

}  // namespace model
