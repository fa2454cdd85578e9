// The orthonormal columns that a factorization has left as reflections; in a file of its own, because what is made of
// it by the library is large.
#pragma once

#include "eigen.h"

namespace llmeff::cpu::LLMEFF_ISA {

// out [m, k] = the first k columns of H₀ H₁ …, where Hᵢ = 1 − tau[i] v vᵀ, and v is 0 above row i + shift, 1 there, and
// below it as column i of `packed` [m, …].
void reflected_identity(const Matrix<float>& packed, const Vector<float>& taus, int64_t shift, Matrix<float>& out);
void reflected_identity(const Matrix<double>& packed, const Vector<double>& taus, int64_t shift, Matrix<double>& out);

}  // namespace llmeff::cpu::LLMEFF_ISA
