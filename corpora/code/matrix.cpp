// Dense matrices: products, transposes and the solution of linear systems.
#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <iomanip>
#include <iostream>
#include <stdexcept>
#include <utility>
#include <vector>

class Matrix {
public:
    Matrix(std::size_t rows, std::size_t cols, double value = 0.0)
        : rows_(rows), cols_(cols), data_(rows * cols, value) {}

    Matrix(std::initializer_list<std::initializer_list<double>> lines)
        : rows_(lines.size()), cols_(rows_ ? lines.begin()->size() : 0) {
        data_.reserve(rows_ * cols_);
        for (const auto& line : lines) {
            if (line.size() != cols_) throw std::invalid_argument("ragged rows");
            data_.insert(data_.end(), line.begin(), line.end());
        }
    }

    static Matrix identity(std::size_t n) {
        Matrix m(n, n);
        for (std::size_t i = 0; i < n; ++i) m(i, i) = 1.0;
        return m;
    }

    std::size_t rows() const { return rows_; }
    std::size_t cols() const { return cols_; }

    double& operator()(std::size_t r, std::size_t c) { return data_[r * cols_ + c]; }
    double operator()(std::size_t r, std::size_t c) const { return data_[r * cols_ + c]; }

    Matrix transposed() const {
        Matrix t(cols_, rows_);
        for (std::size_t r = 0; r < rows_; ++r)
            for (std::size_t c = 0; c < cols_; ++c) t(c, r) = (*this)(r, c);
        return t;
    }

private:
    std::size_t rows_, cols_;
    std::vector<double> data_;
};

// The loops run in the order i, k, j, so that the innermost one walks along
// the rows of both b and the result, which is kind to the cache.
Matrix operator*(const Matrix& a, const Matrix& b) {
    if (a.cols() != b.rows()) throw std::invalid_argument("shapes do not match");
    Matrix product(a.rows(), b.cols());
    for (std::size_t i = 0; i < a.rows(); ++i)
        for (std::size_t k = 0; k < a.cols(); ++k) {
            const double factor = a(i, k);
            for (std::size_t j = 0; j < b.cols(); ++j) product(i, j) += factor * b(k, j);
        }
    return product;
}

// Solves a * x = b by Gaussian elimination with partial pivoting.
Matrix solve(Matrix a, Matrix b) {
    const std::size_t n = a.rows();
    if (a.cols() != n || b.rows() != n) throw std::invalid_argument("shapes do not match");
    for (std::size_t col = 0; col < n; ++col) {
        std::size_t pivot = col;
        for (std::size_t r = col + 1; r < n; ++r)
            if (std::abs(a(r, col)) > std::abs(a(pivot, col))) pivot = r;
        if (std::abs(a(pivot, col)) < 1e-12) throw std::domain_error("matrix is singular");
        if (pivot != col) {
            for (std::size_t c = 0; c < n; ++c) std::swap(a(col, c), a(pivot, c));
            for (std::size_t c = 0; c < b.cols(); ++c) std::swap(b(col, c), b(pivot, c));
        }
        for (std::size_t r = 0; r < n; ++r) {
            if (r == col) continue;
            const double factor = a(r, col) / a(col, col);
            for (std::size_t c = col; c < n; ++c) a(r, c) -= factor * a(col, c);
            for (std::size_t c = 0; c < b.cols(); ++c) b(r, c) -= factor * b(col, c);
        }
    }
    for (std::size_t r = 0; r < n; ++r)
        for (std::size_t c = 0; c < b.cols(); ++c) b(r, c) /= a(r, r);
    return b;
}

std::ostream& operator<<(std::ostream& out, const Matrix& m) {
    for (std::size_t r = 0; r < m.rows(); ++r) {
        for (std::size_t c = 0; c < m.cols(); ++c)
            out << std::setw(10) << std::fixed << std::setprecision(3) << m(r, c);
        out << '\n';
    }
    return out;
}

int main() {
    const Matrix a{{2, 1, -1}, {-3, -1, 2}, {-2, 1, 2}};
    const Matrix b{{8}, {-11}, {-3}};
    const Matrix inverse = solve(a, Matrix::identity(3));
    std::cout << "x =\n" << solve(a, b) << "inverse =\n" << inverse
              << "a * inverse =\n" << a * inverse
              << "a^T * a =\n" << a.transposed() * a;
}
