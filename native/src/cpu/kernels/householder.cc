#include "householder.h"

#include <Eigen/Householder>

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

template <class T>
void reflect(const Matrix<T>& packed, const Vector<T>& taus, int64_t shift, Matrix<T>& out) {
  out.setIdentity();
  out.applyOnTheLeft(eigen::householderSequence(packed, taus).setLength(taus.size()).setShift(shift));
}

}  // namespace

void reflected_identity(const Matrix<float>& packed, const Vector<float>& taus, int64_t shift, Matrix<float>& out) {
  reflect(packed, taus, shift, out);
}
void reflected_identity(const Matrix<double>& packed, const Vector<double>& taus, int64_t shift, Matrix<double>& out) {
  reflect(packed, taus, shift, out);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
