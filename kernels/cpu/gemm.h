// Matrix products of fixed shape: thin owners of oneDNN matmul primitives. A primitive runs on the calling
// thread alone and its bits depend on its shape only; threads take different products.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

namespace lamina {

/// Where element (row, column) of a matrix lies: at row * row_stride + column * column_stride. One of the two
/// is 1.
struct Strides {
  std::int64_t row = 0, column = 1;
  friend auto operator<=>(const Strides&, const Strides&) = default;
};

/// C [m, n] = A [m, k] * B [k, n], or C += with `accumulate`; C's rows are contiguous.
struct GemmShape {
  std::int64_t m = 0, n = 0, k = 0;
  Strides a, b;
  std::int64_t c_row = 0;  ///< row stride of C
  bool accumulate = false;
  friend auto operator<=>(const GemmShape&, const GemmShape&) = default;
};

/// A product of plain strided matrices.
class Gemm {
 public:
  explicit Gemm(const GemmShape& shape);
  ~Gemm();
  Gemm(Gemm&&) noexcept;
  Gemm& operator=(Gemm&&) noexcept;

  /// From any thread.
  void run(const float* a, const float* b, float* c) const;

 private:
  struct Primitive;
  std::unique_ptr<Primitive> primitive_;
};

/// A right-hand side B [k, n] that is used many times: set() lays it out the way oneDNN's kernels like it.
class PackedMatrix {
 public:
  PackedMatrix(std::int64_t k, std::int64_t n);
  ~PackedMatrix();
  PackedMatrix(PackedMatrix&&) noexcept;
  PackedMatrix& operator=(PackedMatrix&&) noexcept;

  std::int64_t k() const;
  std::int64_t n() const;
  /// Copies B, element (i, j) from b[i * strides.row + j * strides.column].
  void set(const float* b, Strides strides);

 private:
  friend class PackedGemm;
  struct Layout;
  std::unique_ptr<Layout> layout_;
};

/// C [m, n] = A [m, k] * B with B packed; rows of A and C are contiguous, `a_row` and `c_row` elements apart.
/// Serves every PackedMatrix of the same k and n.
class PackedGemm {
 public:
  PackedGemm(std::int64_t m, std::int64_t n, std::int64_t k, std::int64_t a_row, std::int64_t c_row);
  ~PackedGemm();
  PackedGemm(PackedGemm&&) noexcept;
  PackedGemm& operator=(PackedGemm&&) noexcept;

  /// From any thread.
  void run(const float* a, const PackedMatrix& b, float* c) const;

 private:
  struct Primitive;
  std::unique_ptr<Primitive> primitive_;
};

}  // namespace lamina
