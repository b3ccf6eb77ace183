#include "kernels/product_series.h"

#include <algorithm>

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

/// The columns [first, first + width) of a product.
struct ColumnShare {
  std::int64_t first;
  PackedMatrix b;
  PackedGemm product;
};

struct SplitProduct {
  SplitProduct(const Product& p, int threads)
      : count(p.count), a(operand(p.m, p.k)), c(static_cast<std::size_t>(p.m * p.n)) {
    check(p.m >= 1 && p.n >= 1 && p.k >= 1, "a product of nothing");
    const std::vector<float> b = operand(p.k, p.n);
    const std::int64_t parts = std::min<std::int64_t>(threads, p.n);
    for (std::int64_t i = 0; i < parts; ++i) {
      const std::int64_t first = p.n * i / parts, width = p.n * (i + 1) / parts - first;
      shares.push_back({first, PackedMatrix(p.k, width), PackedGemm(p.m, width, p.k, p.k, p.n)});
      shares.back().b.set(b.data() + first, {.row = p.n, .column = 1});
    }
  }

  std::int64_t count;
  std::vector<float> a, c;
  std::vector<ColumnShare> shares;
};

}  // namespace

struct ProductSeries::Operands {
  std::vector<Product> products;
  int threads;
  std::vector<SplitProduct> split;
};

double flops_of(const std::vector<Product>& products) {
  double flops = 0;
  for (const Product& product : products) flops += product.flops();
  return flops;
}

ProductSeries::ProductSeries(std::vector<Product> products, int threads)
    : operands_(new Operands{std::move(products), threads, {}}) {
  for (const Product& product : operands_->products)
    if (product.count > 0) operands_->split.emplace_back(product, threads);
}

ProductSeries::~ProductSeries() = default;
ProductSeries::ProductSeries(ProductSeries&&) noexcept = default;
ProductSeries& ProductSeries::operator=(ProductSeries&&) noexcept = default;

const std::vector<Product>& ProductSeries::products() const { return operands_->products; }

void ProductSeries::run() {
  for (SplitProduct& product : operands_->split)
    for (std::int64_t i = 0; i < product.count; ++i)
      parallel_for(operands_->threads, product.shares.size(), [&](std::size_t part) {
        const ColumnShare& share = product.shares[part];
        share.product.run(product.a.data(), share.b, product.c.data() + share.first);
      });
}

}  // namespace lamina
