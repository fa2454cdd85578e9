// In the place of NVIDIA's driver: one that is too old, and can tell no more than its version (CUDA 12.2).
int cuDriverGetVersion(int* version) {
  *version = 12020;
  return 0;
}
