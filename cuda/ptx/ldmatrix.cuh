// One function per PTX instruction: ldmatrix. Matrices of 8 x 8 numbers of 16 bits; lane 8 k + r
// gives the address of row r of matrix k.
#pragma once

#include <cstdint>

namespace fanano::ptx {

__device__ __forceinline__ void ldmatrix_x4(uint32_t (&matrix)[4], uint32_t row_smem) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(matrix[0]), "=r"(matrix[1]), "=r"(matrix[2]), "=r"(matrix[3])
               : "r"(row_smem)
               : "memory");
}

__device__ __forceinline__ void ldmatrix_x4_transposed(uint32_t (&matrix)[4], uint32_t row_smem) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(matrix[0]), "=r"(matrix[1]), "=r"(matrix[2]), "=r"(matrix[3])
               : "r"(row_smem)
               : "memory");
}

}  // namespace fanano::ptx
