// 2-d convolution as products with tiles of the patch matrix (conv_patches.h):
//   out = weight·patch,  dweight = Σ over images of dout·patchᵀ,  dpatch = weightᵀ·dout scattered back to dx.
//
// With strides of 1, dx is itself a convolution of dout, which gathers instead of scattering. A task of the forward
// pass owns some positions of one image and group, one of dx some channels, one of dweight some columns and a part of
// the images; the parts are added up in order. So the sums do not depend on the threads.
#include "conv_depthwise.h"
#include "conv_patches.h"
#include "cpu_kernels.h"
#include "gemm.h"
#include "gemm_tile.h"
#include "row_math.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

constexpr int64_t kTileBytes = 768;  // of one row of a tile of patches
constexpr int64_t kDepth = 512;      // rows of patches at a time: with the tile, what stays in the second cache
constexpr int64_t kTasks = 32;       // to aim at
constexpr int64_t kGradRows = 144;   // rows of patches of a task of the gradients
constexpr int64_t kWork = 32;        // multiply-adds that cost as much as an element of memory

// Positions of a tile, cut evenly; its rows have some space between them, lest they all fall into a few cache sets.
template <class T>
struct Tiles {
  int64_t columns, count, ld;
  explicit Tiles(int64_t positions) {
    constexpr int64_t kMost = kTileBytes / static_cast<int64_t>(sizeof(T)),
                      kLine = 64 / static_cast<int64_t>(sizeof(T));
    columns = round_up(ceil_div(positions, ceil_div(positions, kMost)), kStrip<T>);
    count = ceil_div(positions, columns);
    ld = columns + kLine;
  }
  int64_t elements(int64_t rows) const { return round_up(rows * ld, 16); }
};

template <class T>
void depthwise_forward(const Convolution& c, const T* x, const T* weight, const T* bias, T* out) {
  const PaddedPlane<T> plane(c);
  parallel_items(c.batch * c.groups, plane.elements(), [&](int64_t item, int worker) {
    const int64_t group = item % c.groups;
    T* const padded = worker_scratch<T>(worker, plane.elements() + c.taps());
    T* const taps = padded + plane.elements();
    plane.fill(x + item * c.plane(), padded);
    for (int64_t k = 0; k < c.taps(); ++k) taps[k] = weight[c.weight_at(group, 0, 0, k)];
    const T start = bias == nullptr ? T{0} : bias[group];
    T* const to = out + item * c.positions();
    if (c.stride_w == 1) return depthwise_plane<true>(plane, padded, taps, start, to);
    depthwise_plane<false>(plane, padded, taps, start, to);
  });
}

// Columns [k0, k0 + depth) of a group's weights [O, depth], into panels as pack_a makes them.
template <class T>
void pack_weights(const Convolution& c, const T* weight, int64_t group, int64_t k0, int64_t depth, T* packed,
                  int64_t panel) {
  const int64_t m = c.out_channels;
  if (!c.transposed) return pack_a(weight + group * m * c.depth() + k0, c.depth(), int64_t{1}, m, depth, packed, panel);
  for (int64_t i0 = 0; i0 < m; i0 += panel) {
    const int64_t rows = smaller(panel, m - i0);
    for (int64_t k = 0; k < depth; ++k) {
      const T* const from = weight + c.weight_at(group, i0, (k0 + k) / c.taps(), (k0 + k) % c.taps());
      for (int64_t i = 0; i < rows; ++i) packed[i0 * depth + k * rows + i] = from[i * c.taps()];
    }
  }
}

template <class T>
void forward(const Convolution& c, const T* x, const T* weight, const T* bias, T* out) {
  if (c.depthwise()) return depthwise_forward(c, x, weight, bias, out);
  const int64_t m = c.out_channels, positions = c.positions(), depth = c.depth();
  const int64_t blocks = ceil_div(depth, kDepth), per_block = ceil_div(depth, blocks), panel = panel_rows(m);
  const Tiles<T> tiles(positions);
  const int64_t packed_block = round_up(m * per_block + kLanes<T>, 16);
  T* const packed = shared_scratch<T>(c.groups * blocks * packed_block);
  parallel_for(c.groups * blocks, [&](int64_t task, int) {
    const int64_t k0 = task % blocks * per_block;
    pack_weights(c, weight, task / blocks, k0, smaller(per_block, depth - k0), packed + task * packed_block, panel);
  });
  parallel_items(c.batch * c.groups * tiles.count, m * depth * tiles.columns / kWork, [&](int64_t item, int worker) {
    const int64_t image = item / tiles.count, group = image % c.groups, first = item % tiles.count * tiles.columns;
    const int64_t columns = smaller(tiles.columns, positions - first);
    T* const target = out + image * m * positions + first;
    if (bias != nullptr)
      for (int64_t o = 0; o < m; ++o)
        for (int64_t i = 0; i < columns; ++i) target[o * positions + i] = bias[group * m + o];
    T* const tile = worker_scratch<T>(worker, tiles.elements(per_block));
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t k0 = block * per_block, rows = smaller(per_block, depth - k0);
      gather_patches(c, x + image * c.in_channels * c.plane(), k0, rows, first, columns, tile, tiles.ld);
      multiply_packed(m, columns, rows, packed + (group * blocks + block) * packed_block, panel, tile, tiles.ld,
                      kStrip<T>, tile_out(target, positions, bias != nullptr || block > 0));
    }
  });
}

template <class T>
void input_gradient(const Convolution& c, const T* dout, const T* weight, T* dx) {
  // Patches of dout cost more than those of x where it has many more channels.
  if (c.has_transpose() && !c.pointwise() && 2 * c.in_channels >= c.out_channels)
    return forward<T>(c.transpose(), dout, weight, nullptr, dx);
  const int64_t m = c.out_channels, positions = c.positions(), depth = c.depth(), taps = c.taps();
  const int64_t channels = smaller(c.in_channels, larger(1, kGradRows / taps));
  const int64_t blocks = ceil_div(c.in_channels, channels);
  const Tiles<T> tiles(positions);
  const int64_t tile_elements = tiles.elements(channels * taps),
                scratch = gemm_scratch<T>(channels * taps, tiles.columns, m);
  const int64_t items = c.batch * c.groups * blocks;
  parallel_items(items, m * channels * taps * positions / kWork, [&](int64_t item, int worker) {
    const int64_t image = item / blocks, group = image % c.groups, channel = item % blocks * channels;
    const int64_t rows = smaller(channels, c.in_channels - channel) * taps;
    T* const tile = worker_scratch<T>(worker, tile_elements + scratch);
    T* const target = dx + (image * c.in_channels + channel) * c.plane();
    const bool direct = c.pointwise();
    if (!direct)
      for (int64_t i = 0; i < rows / taps * c.plane(); ++i) target[i] = 0;
    for (int64_t first = 0; first < positions; first += tiles.columns) {
      const int64_t columns = smaller(tiles.columns, positions - first);
      gemm_serial(rows, columns, m, weight + group * m * depth + channel * taps, int64_t{1}, depth,
                  dout + image * m * positions + first, positions, int64_t{1}, direct ? target + first : tile,
                  direct ? positions : tiles.ld, false, tile + tile_elements);
      if (!direct) scatter_patches(c, tile, tiles.ld, 0, rows, first, columns, target);
    }
  });
}

template <class T>
void depthwise_weight_gradient(const Convolution& c, const T* dout, const T* x, T* dweight) {
  const PaddedPlane<T> plane(c);
  const int64_t ld = ceil_div(c.out_width, kLanes<T>) * kLanes<T>;
  parallel_items(c.groups, c.batch * plane.elements(), [&](int64_t group, int worker) {
    T* const padded = worker_scratch<T>(worker, plane.elements() + c.out_height * ld);
    T* const rows = padded + plane.elements();
    T* const target = dweight + group * c.taps();
    for (int64_t k = 0; k < c.taps(); ++k) target[k] = 0;
    for (int64_t i = 0; i < c.out_height * ld; ++i) rows[i] = 0;
    for (int64_t image = 0; image < c.batch; ++image) {
      const int64_t item = image * c.groups + group;
      plane.fill(x + item * c.plane(), padded);
      for (int64_t oh = 0; oh < c.out_height; ++oh)
        copy_line(rows + oh * ld, dout + item * c.positions() + oh * c.out_width, c.out_width);
      for (int64_t k = 0; k < c.taps(); ++k) {
        const int64_t r = k / c.kernel_w, s = k % c.kernel_w;
        target[k] += c.stride_w == 1 ? depthwise_tap_gradient<true>(plane, padded, rows, ld, r, s)
                                     : depthwise_tap_gradient<false>(plane, padded, rows, ld, r, s);
      }
    }
  });
}

template <class T>
void weight_gradient(const Convolution& c, const T* dout, const T* x, T* dweight) {
  if (c.depthwise()) return depthwise_weight_gradient(c, dout, x, dweight);
  const int64_t m = c.out_channels, positions = c.positions(), depth = c.depth();
  const int64_t blocks = ceil_div(depth, kGradRows), per_block = ceil_div(depth, blocks);
  const Tiles<T> tiles(positions);
  const int64_t steps = c.batch * tiles.count;  // of the sum over images and positions
  const int64_t parts = smaller(steps, ceil_div(kTasks, c.groups * blocks));
  const int64_t tile_elements = tiles.elements(per_block), scratch = gemm_scratch<T>(m, per_block, tiles.columns);
  const int64_t size = c.groups * m * depth;
  T* const partial = shared_scratch<T>(parts * size);
  const auto add_up = [&](int64_t item, int worker) {
    const int64_t part = item % parts, block = item / parts % blocks, group = item / parts / blocks;
    const int64_t k0 = block * per_block, rows = smaller(per_block, depth - k0);
    T* const tile = worker_scratch<T>(worker, tile_elements + scratch);
    T* const sum = partial + part * size + group * m * depth + k0;
    const int64_t begin = part * steps / parts, end = (part + 1) * steps / parts;
    for (int64_t step = begin; step < end; ++step) {
      const int64_t image = step / tiles.count * c.groups + group, first = step % tiles.count * tiles.columns;
      const int64_t columns = smaller(tiles.columns, positions - first);
      gather_patches(c, x + image * c.in_channels * c.plane(), k0, rows, first, columns, tile, tiles.ld);
      gemm_serial(m, rows, columns, dout + image * m * positions + first, positions, int64_t{1}, tile, int64_t{1},
                  tiles.ld, sum, depth, step > begin, tile + tile_elements);
    }
  };
  parallel_items(c.groups * blocks * parts, m * per_block * ceil_div(steps, parts) * tiles.columns / kWork, add_up);
  parallel_items(ceil_div(size, kSumChunk), kSumChunk * parts, [&](int64_t piece, int) {
    const int64_t first = piece * kSumChunk, end = smaller(size, first + kSumChunk);
    for (int64_t i = first; i < end; ++i) dweight[i] = partial[i];
    for (int64_t part = 1; part < parts; ++part)
      for (int64_t i = first; i < end; ++i) dweight[i] += partial[part * size + i];
  });
}

template <class T>
void bias_gradient(const Convolution& c, const T* dout, T* dbias) {
  const int64_t channels = c.groups * c.out_channels, positions = c.positions();
  parallel_items(channels, c.batch * positions, [&](int64_t o, int) {
    double sum = 0;
    for (int64_t b = 0; b < c.batch; ++b) {
      const T* const p = dout + (b * channels + o) * positions;
      sum += row_sum<T>(positions, [p](int64_t i, int64_t part) { return gather(p + i, 1, part); });
    }
    dbias[o] = static_cast<T>(sum);
  });
}

template <class T>
void backward(const Convolution& c, const In& dout, const In& x, const In& weight, const Out& dx, const Out& dweight,
              const Out& dbias) {
  if (dx.present()) input_gradient(c, dout.as<const T>(), weight.as<const T>(), dx.as<T>());
  if (dweight.present()) weight_gradient(c, dout.as<const T>(), x.as<const T>(), dweight.as<T>());
  if (dbias.present()) bias_gradient(c, dout.as<const T>(), dbias.as<T>());
}

}  // namespace

void CpuKernels::conv2d(const In& x, const In& weight, const In& bias, int64_t stride_h, int64_t stride_w,
                        int64_t padding_h, int64_t padding_w, int64_t dilation_h, int64_t dilation_w, int64_t groups,
                        const Out& out) {
  Convolution c = {stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w, groups};
  c.shape(x, weight, out);
  if (x.dtype == DType::kF64)
    forward(c, x.as<const double>(), weight.as<const double>(), bias.as<const double>(), out.as<double>());
  else
    forward(c, x.as<const float>(), weight.as<const float>(), bias.as<const float>(), out.as<float>());
}

void CpuKernels::conv2d_grad(const In& dout, const In& x, const In& weight, int64_t stride_h, int64_t stride_w,
                             int64_t padding_h, int64_t padding_w, int64_t dilation_h, int64_t dilation_w,
                             int64_t groups, const Out& dx, const Out& dweight, const Out& dbias) {
  Convolution c = {stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w, groups};
  c.shape(x, weight, dout);
  if (x.dtype == DType::kF64)
    backward<double>(c, dout, x, weight, dx, dweight, dbias);
  else
    backward<float>(c, dout, x, weight, dx, dweight, dbias);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
