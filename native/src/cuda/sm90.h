// Hopper (sm_90a) instructions, one inline function each: mbarriers, bulk tensor copies (TMA), warpgroup matrix
// products (wgmma), register reallocation, named barriers; and the host's tensor maps. Only layouts are explained here;
// who waits for whom is each kernel's own matter.
//
// Shared-memory tiles. Every tile is a stack of "panels": `rows` rows of 64 bf16 channels, 128 bytes a row, with the
// 128-byte swizzle (16-byte column c of row r lies at column c ^ (r % 8)), which is how a TMA box of 64 channels
// arrives and what the matrix descriptors below expect. A tile of D channels is D / 64 panels, one after the other;
// panels start at multiples of 1024 bytes. swizzled() gives the byte of an element for code that writes tiles itself
// (then fence_async_shared() in every writing thread, before the barrier that hands the tile over).
//
// Fragments, for thread t of a warpgroup (warp w = t / 32, lane l = t % 32), r = 16 w + l / 4, c = 2 (l % 4):
//   accumulators d[N / 2] of m64nN:  d[4j], d[4j + 1] = (r, 8j + c), (r, 8j + c + 1);
//                                    d[4j + 2], d[4j + 3] the same in row r + 8
//   operand a[4] of m64k16 (bf16x2): a[0] = (r, c..c+1), a[1] = (r + 8, c..),
//                                    a[2] = (r, c + 8..), a[3] = (r + 8, c + 8..)
// So 16 columns of an accumulator, packed in pairs, are the operand a of a following product over those columns.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace llmeff::cuda::sm90 {

constexpr int kPanelChannels = 64;
constexpr int kPanelRowBytes = 128;

// ---- tensor maps (host) ---------------------------------------------------------------------------------------------

// A bf16 array [B, T, H, D] with strides in elements, channels contiguous.
struct Bf16Array {
  const void* data;
  int64_t B, T, H, D;
  int64_t batch_stride, row_stride, head_stride;
};

// What TMA asks of an array: 16-byte base and strides.
inline bool tma_can_read(const Bf16Array& x) {
  const auto aligned = [](int64_t stride, int64_t size) { return size == 1 || (stride > 0 && stride % 8 == 0); };
  return reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && x.D % 8 == 0 && aligned(x.batch_stride, x.B) &&
         aligned(x.row_stride, x.T) && aligned(x.head_stride, x.H) && x.T < (int64_t{1} << 31);
}

// Boxes of `rows` rows × `heads` heads × 64 channels, swizzled; a box lands as rows × heads × 128 bytes. Coordinates
// are (channel, head, row, batch); rows and channels past the end read as zero and are not written.
inline cudaError_t make_tensor_map(CUtensorMap* map, const Bf16Array& x, int rows, int heads = 1) {
  using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*,
                              const cuuint64_t*, const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave,
                              CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
  static const Encode encode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found;
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found) !=
        cudaSuccess) {
      return static_cast<Encode>(nullptr);
    }
    return reinterpret_cast<Encode>(function);
  }();
  if (encode == nullptr) return cudaErrorNotSupported;
  const cuuint64_t sizes[4] = {cuuint64_t(x.D), cuuint64_t(x.H), cuuint64_t(x.T), cuuint64_t(x.B)};
  // A stride of a dimension of size 1 is never used, but must look like one.
  const auto bytes = [](int64_t stride, int64_t size) { return size == 1 ? cuuint64_t(16) : cuuint64_t(stride) * 2; };
  const cuuint64_t strides[3] = {bytes(x.head_stride, x.H), bytes(x.row_stride, x.T), bytes(x.batch_stride, x.B)};
  const cuuint32_t box[4] = {kPanelChannels, cuuint32_t(heads), cuuint32_t(rows), 1};
  const cuuint32_t steps[4] = {1, 1, 1, 1};
  const CUresult result = encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, const_cast<void*>(x.data), sizes, strides,
                                 box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

// ---- shared memory --------------------------------------------------------------------------------------------------

__device__ inline uint32_t shared_address(const void* p) {
  return uint32_t(__cvta_generic_to_shared(p));
}

// Byte of (row, channel) inside one panel.
__device__ inline uint32_t swizzled(int row, int channel) {
  return uint32_t(row) * kPanelRowBytes + ((uint32_t(channel / 8) ^ uint32_t(row % 8)) * 16) +
         uint32_t(channel % 8) * 2;
}

// Makes ordinary shared-memory stores visible to TMA and wgmma.
__device__ inline void fence_async_shared() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// ---- mbarriers ------------------------------------------------------------------------------------------------------

__device__ inline void mbarrier_init(uint64_t* barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
// Once, by the thread that initialised, before the barrier of the whole block.
__device__ inline void mbarrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ inline void mbarrier_arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
// Arrives and announces `bytes` of copies that will complete on this phase.
__device__ inline void mbarrier_arrive_expect(uint64_t* barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}
__device__ inline bool mbarrier_try_wait(uint64_t* barrier, uint32_t parity) {
  uint32_t done;
  asm volatile("{\n .reg .pred p;\n mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n selp.u32 %0, 1, 0, p;\n}"
               : "=r"(done)
               : "r"(shared_address(barrier)), "r"(parity)
               : "memory");
  return done != 0;
}
// Returns when the phase of this parity has completed (a fresh barrier has completed parity 1).
// With LLMEFF_DEBUG_SPIN a wait that never ends traps.
__device__ inline void mbarrier_wait(uint64_t* barrier, uint32_t parity) {
#ifdef LLMEFF_DEBUG_SPIN
  for (int64_t spins = 0; !mbarrier_try_wait(barrier, parity); ++spins) {
    if (spins > (int64_t{1} << 22)) __trap();
  }
#else
  while (!mbarrier_try_wait(barrier, parity)) {
  }
#endif
}

// Position in a ring of kStages.
template <int kStages>
struct Ring {
  int stage = 0;
  uint32_t phase = 0;
  __device__ void next() {
    if (++stage == kStages) stage = 0, phase ^= 1;
  }
};

// ---- bulk tensor copies ---------------------------------------------------------------------------------------------

__device__ inline void prefetch_tensor_map(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
// One thread; completes on `barrier` with the whole box's bytes, also where the box passes the array's end.
__device__ inline void tma_load(void* panel, const CUtensorMap* map, uint64_t* barrier, int channel, int head, int row,
                                int batch) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], "
      "[%2];" ::"r"(shared_address(panel)),
      "l"(map), "r"(shared_address(barrier)), "r"(channel), "r"(head), "r"(row), "r"(batch)
      : "memory");
}
// One thread; the panel may be reused after tma_store_commit and tma_store_wait_read.
__device__ inline void tma_store(const CUtensorMap* map, const void* panel, int channel, int head, int row, int batch) {
  asm volatile("cp.async.bulk.tensor.4d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4, %5}], [%1];" ::"l"(map),
               "r"(shared_address(panel)), "r"(channel), "r"(head), "r"(row), "r"(batch)
               : "memory");
}
__device__ inline void tma_store_commit() {
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
template <int kPending = 0>
__device__ inline void tma_store_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
}

// ---- clusters of blocks ---------------------------------------------------------------------------------------------

// As tma_load, for the same place in each block of the cluster whose bit is set, where it completes on the same
// barrier.
__device__ inline void tma_load_multicast(void* panel, const CUtensorMap* map, uint64_t* barrier, int channel, int head,
                                          int row, int batch, uint16_t blocks) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, "
      "{%3, %4, %5, %6}], [%2], %7;" ::"r"(shared_address(panel)),
      "l"(map), "r"(shared_address(barrier)), "r"(channel), "r"(head), "r"(row), "r"(batch), "h"(blocks)
      : "memory");
}
// Arrives at the same barrier of a block of the cluster. It orders what the tensor cores have read, but no ordinary
// accesses beyond the block: for those every arrival would wait for all memory of the GPU.
__device__ inline void mbarrier_arrive_at(uint64_t* barrier, int block) {
  asm volatile(
      "{\n .reg .b32 remote;\n mapa.shared::cluster.u32 remote, %0, %1;\n"
      " mbarrier.arrive.shared::cluster.b64 _, [remote];\n}" ::"r"(shared_address(barrier)),
      "r"(block)
      : "memory");
}
// All threads of all blocks of the cluster; warps needn't come to it converged: of a producer's, one lane works.
__device__ inline void cluster_barrier() {
  asm volatile("barrier.cluster.arrive.release;\n barrier.cluster.wait.acquire;" ::: "memory");
}

// ---- roles and barriers of part of a block --------------------------------------------------------------------------

// All warps of a warpgroup; the kernel needs __launch_bounds__(threads, 1).
template <int kRegisters>
__device__ inline void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
// Named barriers 1..15 (0 is __syncthreads): `threads` counts those that wait and those that only arrive.
__device__ inline void named_barrier_wait(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ inline void named_barrier_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// ---- matrix operands in shared memory -------------------------------------------------------------------------------

// How an operand's panels lie to the product's depth k: kMajorK when the 64 channels of a panel row are k (K of QKᵀ),
// kMajorMN when the rows are k and the channels are the output's columns (V of PV).
enum Major : int { kMajorK = 0, kMajorMN = 1 };

// Descriptor of an operand at `address` (shared_address of a panel, or advanced as below). `panel_rows` is used by
// kMajorMN operands of more than 64 columns, whose next 64 columns are the next panel.
//   kMajorK:  16 deeper in k is + 32 bytes within a panel, 64 deeper is the next panel; column n is row n, so a later
//             block of columns (a multiple of 8) is + 128 bytes a column.
//   kMajorMN: 16 deeper in k is + 16 rows, 2048 bytes.
template <Major kMajor>
__device__ inline uint64_t matrix_descriptor(uint32_t address, int panel_rows = 0) {
  constexpr uint64_t k128ByteSwizzle = uint64_t{1} << 62;
  constexpr uint64_t kEightRows = uint64_t{8 * kPanelRowBytes / 16} << 32;
  const uint64_t next_panel = kMajor == kMajorK ? 1 : uint64_t(panel_rows) * kPanelRowBytes / 16;
  return k128ByteSwizzle | kEightRows | (next_panel << 16) | ((address & 0x3FFFF) >> 4);
}
// The address is in the low word and does not carry into the high one.
__device__ inline uint64_t advance(uint64_t descriptor, int bytes) {
  return (descriptor & 0xFFFFFFFF00000000ull) | uint32_t(uint32_t(descriptor) + uint32_t(bytes >> 4));
}

// ---- warpgroup matrix products --------------------------------------------------------------------------------------

// Before the first product that reads registers (operand a, accumulators) written by other instructions.
__device__ inline void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ inline void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending = 0>
__device__ inline void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// Keeps the compiler from moving uses of registers across this point: call it on accumulators and operands before
// wgmma_fence and after the wgmma_wait that frees them. No instruction comes of it.
template <int kCount>
__device__ inline void pin(float (&x)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(x[i])::"memory");
}
template <int kCount>
__device__ inline void pin(uint32_t (&x)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+r"(x[i])::"memory");
}

// d = a·b + (accumulate ? d : 0), m64nNk16, bf16 operands, float32 accumulators.
//   wgmma_rs<N, major of b>(d, a, b, accumulate):                operand a in registers
//   wgmma_ss<N, major of a, major of b>(d, a, b, accumulate):    operand a in shared memory
// wgmma_rs<N, major of b, bytes> advances b by a constant inside the instruction's text: out of a loop's reach, where
// the compiler would otherwise keep one pair of registers for every k-step's descriptor.
template <int N, Major kMajorB, int kAdvance>
struct WgmmaRs;
template <int N, Major kMajorA, Major kMajorB>
struct WgmmaSs;

// Operand lists. The accumulators are %0.. and what follows them counts on, so each N needs its own text.
#define LLMEFF_D8(i)                                                                                          \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), \
      "+f"(d[i + 7])
#define LLMEFF_D16(i) LLMEFF_D8(i), LLMEFF_D8(i + 8)
#define LLMEFF_D32(i) LLMEFF_D16(i), LLMEFF_D16(i + 16)
#define LLMEFF_D64(i) LLMEFF_D32(i), LLMEFF_D32(i + 32)

#define LLMEFF_T16 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define LLMEFF_T32 LLMEFF_T16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define LLMEFF_T40 LLMEFF_T32 ",%32,%33,%34,%35,%36,%37,%38,%39"
#define LLMEFF_T48 LLMEFF_T40 ",%40,%41,%42,%43,%44,%45,%46,%47"
#define LLMEFF_T56 LLMEFF_T48 ",%48,%49,%50,%51,%52,%53,%54,%55"
#define LLMEFF_T64 LLMEFF_T56 ",%56,%57,%58,%59,%60,%61,%62,%63"
#define LLMEFF_T96                                                   \
  LLMEFF_T64                                                         \
  ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79" \
  ",%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define LLMEFF_T128                                                              \
  LLMEFF_T96                                                                     \
  ",%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111" \
  ",%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"

#define LLMEFF_WGMMA(N, TEXT, LIST, A0, A1, A2, A3, B, P, TA, TB)                                                \
  template <Major kMajorB, int kAdvance>                                                                         \
  struct WgmmaRs<N, kMajorB, kAdvance> {                                                                         \
    __device__ static void run(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, int accumulate) {          \
      asm volatile("{\n .reg .pred p;\n .reg .b32 low, high;\n .reg .b64 b;\n setp.ne.b32 p, %" P                \
                   ", 0;\n"                                                                                      \
                   " mov.b64 {low, high}, %" B ";\n add.u32 low, low, %" TB                                      \
                   ";\n mov.b64 b, {low, high};\n"                                                               \
                   " wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" TEXT "}, {%" A0 ",%" A1 ",%" A2 \
                   ",%" A3 "}, b, p, 1, 1, %" TA ";\n}"                                                          \
                   : LIST                                                                                        \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(int(kMajorB)),     \
                     "n"(kAdvance / 16));                                                                        \
    }                                                                                                            \
  };                                                                                                             \
  template <Major kMajorA, Major kMajorB>                                                                        \
  struct WgmmaSs<N, kMajorA, kMajorB> {                                                                          \
    __device__ static void run(float (&d)[N / 2], uint64_t a, uint64_t b, int accumulate) {                      \
      asm volatile("{\n .reg .pred p;\n setp.ne.b32 p, %" A2 ", 0;\n wgmma.mma_async.sync.aligned.m64n" #N       \
                   "k16.f32.bf16.bf16 {" TEXT "}, %" A0 ", %" A1 ", p, 1, 1, %" A3 ", %" B ";\n}"                \
                   : LIST                                                                                        \
                   : "l"(a), "l"(b), "r"(accumulate), "n"(int(kMajorA)), "n"(int(kMajorB)));                     \
    }                                                                                                            \
  };

// clang-format off
#define LLMEFF_LIST32 LLMEFF_D32(0)
#define LLMEFF_LIST40 LLMEFF_D32(0), LLMEFF_D8(32)
#define LLMEFF_LIST48 LLMEFF_D32(0), LLMEFF_D16(32)
#define LLMEFF_LIST56 LLMEFF_D32(0), LLMEFF_D16(32), LLMEFF_D8(48)
#define LLMEFF_LIST64 LLMEFF_D32(0), LLMEFF_D32(32)
#define LLMEFF_LIST128 LLMEFF_D64(0), LLMEFF_D64(64)
LLMEFF_WGMMA(32, LLMEFF_T16, LLMEFF_D16(0), "16", "17", "18", "19", "20", "21", "22", "23")
LLMEFF_WGMMA(64, LLMEFF_T32, LLMEFF_LIST32, "32", "33", "34", "35", "36", "37", "38", "39")
LLMEFF_WGMMA(80, LLMEFF_T40, LLMEFF_LIST40, "40", "41", "42", "43", "44", "45", "46", "47")
LLMEFF_WGMMA(96, LLMEFF_T48, LLMEFF_LIST48, "48", "49", "50", "51", "52", "53", "54", "55")
LLMEFF_WGMMA(112, LLMEFF_T56, LLMEFF_LIST56, "56", "57", "58", "59", "60", "61", "62", "63")
LLMEFF_WGMMA(128, LLMEFF_T64, LLMEFF_LIST64, "64", "65", "66", "67", "68", "69", "70", "71")
LLMEFF_WGMMA(256, LLMEFF_T128, LLMEFF_LIST128, "128", "129", "130", "131", "132", "133", "134", "135")
// clang-format on

#undef LLMEFF_WGMMA
#undef LLMEFF_LIST32
#undef LLMEFF_LIST40
#undef LLMEFF_LIST48
#undef LLMEFF_LIST56
#undef LLMEFF_LIST64
#undef LLMEFF_LIST128
#undef LLMEFF_T16
#undef LLMEFF_T32
#undef LLMEFF_T40
#undef LLMEFF_T48
#undef LLMEFF_T56
#undef LLMEFF_T64
#undef LLMEFF_T96
#undef LLMEFF_T128
#undef LLMEFF_D8
#undef LLMEFF_D16
#undef LLMEFF_D32
#undef LLMEFF_D64

template <int N, Major kMajorB, int kAdvance = 0>
__device__ inline void wgmma_rs(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, int accumulate = 1) {
  WgmmaRs<N, kMajorB, kAdvance>::run(d, a, b, accumulate);
}
template <int N, Major kMajorA, Major kMajorB>
__device__ inline void wgmma_ss(float (&d)[N / 2], uint64_t a, uint64_t b, int accumulate = 1) {
  WgmmaSs<N, kMajorA, kMajorB>::run(d, a, b, accumulate);
}

// ---- small arithmetic -----------------------------------------------------------------------------------------------

// Two floats rounded to bf16x2, `low` in the low half (the smaller column).
__device__ inline uint32_t pack_bf16(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}
// Product of bf16 pairs, rounded once.
__device__ inline uint32_t multiply_bf16x2(uint32_t a, uint32_t b) {
  uint32_t product;
  asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
  return product;
}
// 2^x; 2^-inf = 0. Subnormal results flush to zero.
__device__ inline float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// ---- bulk copies of plain bytes -------------------------------------------------------------------------------------

// One thread each; addresses and sizes are multiples of 16 bytes.
__device__ inline void bulk_load(void* shared, const void* global, uint32_t bytes, uint64_t* barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   shared_address(shared)),
               "l"(global), "r"(bytes), "r"(shared_address(barrier))
               : "memory");
}
// Of what is read once: the L2 cache gives it up first.
__device__ inline void bulk_load_once(void* shared, const void* global, uint32_t bytes, uint64_t* barrier) {
  asm volatile(
      "{\n .reg .b64 policy;\n createpolicy.fractional.L2::evict_first.b64 policy, 1.0;\n"
      " cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], "
      "policy;\n}" ::"r"(shared_address(shared)),
      "l"(global), "r"(bytes), "r"(shared_address(barrier))
      : "memory");
}
__device__ inline void bulk_store(void* global, const void* shared, uint32_t bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(global), "r"(shared_address(shared)),
               "r"(bytes)
               : "memory");
}
__device__ inline void bulk_add_f32(float* global, const float* shared, uint32_t bytes) {
  asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(global),
               "r"(shared_address(shared)), "r"(bytes)
               : "memory");
}
// Waits until the committed stores have been written, not only read.
__device__ inline void bulk_store_wait() {
  asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}
// Orders copies of the async proxy with ordinary accesses, in all memory.
__device__ inline void fence_async() {
  asm volatile("fence.proxy.async;" ::: "memory");
}

// ---- flags in device memory -----------------------------------------------------------------------------------------

__device__ inline int load_acquire(const int* flag) {
  int value;
  asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
  return value;
}
__device__ inline void store_release(int* flag, int value) {
  asm volatile("st.release.gpu.global.s32 [%0], %1;" ::"l"(flag), "r"(value) : "memory");
}

// The same value in all lanes, told to the compiler: a branch on it doesn't diverge.
__device__ inline int uniform(int value) {
  return __shfl_sync(0xffffffffu, value, 0);
}

// ---- fragments to shared memory -------------------------------------------------------------------------------------

// Four 8×8 matrices of bf16; lane l gives the address of row l % 8 of matrix l / 8. An operand fragment a[4] is the
// matrices (rows 0–7, columns 0–7), (rows 8–15, columns 0–7), (rows 0–7, columns 8–15), (rows 8–15, columns 8–15).
__device__ inline void store_matrices(uint32_t address, const uint32_t (&a)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(a[0]), "r"(a[1]),
               "r"(a[2]), "r"(a[3])
               : "memory");
}

// ---- fragments to memory --------------------------------------------------------------------------------------------

// Rows `low` (lane / 4) and `high` (8 below) of an accumulator fragment go to memory as bf16, times their factors; a
// null row is skipped, and so are columns from `columns` on, a multiple of 8. Four threads hold two columns each of an
// 8-column group; they exchange among four groups, so that each stores 16 bytes.
template <int N>
__device__ inline void store_rows(const float (&d)[N / 2], float low_factor, float high_factor, __nv_bfloat16* low,
                                  __nv_bfloat16* high, int columns = N) {
  const int quad = threadIdx.x % 4;
#pragma unroll
  for (int part = 0; part < 2; ++part) {
    __nv_bfloat16* const row = part == 0 ? low : high;
    const float factor = part == 0 ? low_factor : high_factor;
#pragma unroll
    for (int group = 0; group < N / 32; ++group) {
      uint32_t x[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int at = 4 * (4 * group + j) + 2 * part;
        x[j] = pack_bf16(d[at] * factor, d[at + 1] * factor);
      }
      const auto exchange = [&](uint32_t& a, uint32_t& b, int distance) {
        const bool upper = (quad & distance) != 0;
        const uint32_t received = __shfl_xor_sync(0xffffffffu, upper ? a : b, distance);
        a = upper ? received : a;
        b = upper ? b : received;
      };
      exchange(x[0], x[1], 1);
      exchange(x[2], x[3], 1);
      exchange(x[0], x[2], 2);
      exchange(x[1], x[3], 2);
      if (row != nullptr && 32 * group + 8 * quad < columns)
        *reinterpret_cast<uint4*>(row + 32 * group + 8 * quad) = make_uint4(x[0], x[1], x[2], x[3]);
    }
  }
}

}  // namespace llmeff::cuda::sm90
