#include "kernels/cpu/product_series.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <map>
#include <utility>

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/parallel.h"
#include "runtime/error.h"
#include "runtime/random.h"

namespace lamina {
namespace {

/// Small numbers: products of many stay far from infinity.
std::vector<float> operand(std::int64_t rows, std::int64_t columns) {
  const RandomStream random(1, "product");
  std::vector<float> values(static_cast<std::size_t>(rows * columns));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = random.uniform(0, i) - 0.5f;
  return values;
}

/// How a product is cut: into calls of at most `rows` rows and `columns` columns.
struct Cut {
  std::int64_t rows, columns;
};

/// Of a range of numbers.
struct Piece {
  std::int64_t first, size;
};

std::vector<Piece> pieces_of(std::int64_t count, std::int64_t most) {
  std::vector<Piece> pieces;
  for (std::int64_t first = 0; first < count; first += most)
    pieces.push_back({first, std::min(most, count - first)});
  return pieces;
}

/// The calls' results lie one after another: for others the library has no fast kernel.
class CutProduct {
 public:
  CutProduct(const Product& product, const Cut& cut)
      : product_(product),
        rows_(pieces_of(product.m, cut.rows)),
        columns_(pieces_of(product.n, cut.columns)),
        a_(operand(product.m, product.k)),
        c_(static_cast<std::size_t>(product.m * product.n)) {
    const std::vector<float> b = operand(product.k, product.n);
    for (const Piece& columns : columns_) {
      b_.emplace_back(product.k, columns.size).set(b.data() + columns.first, {.row = product.n, .column = 1});
      for (const Piece& rows : rows_)
        calls_.try_emplace({rows.size, columns.size}, rows.size, columns.size, product.k, product.k,
                           columns.size);
    }
  }

  void run(int threads) {
    parallel_for(threads, columns_.size() * rows_.size(), [&](std::size_t i) {
      const Piece &rows = rows_[i % rows_.size()], &columns = columns_[i / rows_.size()];
      calls_.at({rows.size, columns.size})
          .run(a_.data() + rows.first * product_.k, b_[i / rows_.size()],
               c_.data() + rows.first * product_.n + columns.first * rows.size);
    });
  }
  std::int64_t count() const { return product_.count; }

 private:
  Product product_;
  std::vector<Piece> rows_, columns_;
  std::vector<float> a_, c_;
  std::vector<PackedMatrix> b_;  ///< by columns
  std::map<std::pair<std::int64_t, std::int64_t>, PackedGemm> calls_;
};

/// As a whole, or in pieces as the layers have them; all of them keep every thread busy.
std::vector<Cut> cuts_of(const Product& p, int threads) {
  constexpr std::int64_t kChunk = 128, kBlocks = 8;
  const std::int64_t share = (p.n + threads - 1) / threads;
  std::vector<Cut> cuts{{p.m, share}};
  const std::int64_t block = (p.n + kBlocks * threads - 1) / (kBlocks * threads);
  if (block >= 16) cuts.push_back({p.m, block});
  if (p.m > kChunk) cuts.push_back({kChunk, share});
  if (p.m > 4 * kChunk) cuts.push_back({4 * kChunk, share});
  return cuts;
}

double seconds_of(CutProduct& product, int threads) {
  const auto start = std::chrono::steady_clock::now();
  product.run(threads);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// The cut that is fastest here, by a few runs of each in turn.
CutProduct fastest(const Product& product, int threads) {
  constexpr int kRuns = 3;
  std::vector<CutProduct> candidates;
  for (const Cut& cut : cuts_of(product, threads)) candidates.emplace_back(product, cut);
  std::vector<double> best(candidates.size(), std::numeric_limits<double>::infinity());
  for (int run = 0; run < kRuns && candidates.size() > 1; ++run)
    for (std::size_t i = 0; i < candidates.size(); ++i)
      best[i] = std::min(best[i], seconds_of(candidates[i], threads));
  return std::move(candidates[static_cast<std::size_t>(std::ranges::min_element(best) - best.begin())]);
}

class CpuProductSeries final : public ProductSeries {
 public:
  CpuProductSeries(std::vector<Product> products, int threads)
      : products_(std::move(products)), threads_(threads) {
    for (const Product& product : products_) {
      check(product.m >= 1 && product.n >= 1 && product.k >= 1, "a product of nothing");
      if (product.count > 0) cut_.push_back(fastest(product, threads));
    }
  }

  const std::vector<Product>& products() const override { return products_; }

  void run() override {
    for (CutProduct& product : cut_)
      for (std::int64_t i = 0; i < product.count(); ++i) product.run(threads_);
  }

 private:
  std::vector<Product> products_;
  int threads_;
  std::vector<CutProduct> cut_;
};

}  // namespace

std::unique_ptr<ProductSeries> make_cpu_product_series(std::vector<Product> products, int threads) {
  return std::make_unique<CpuProductSeries>(std::move(products), threads);
}

}  // namespace lamina
