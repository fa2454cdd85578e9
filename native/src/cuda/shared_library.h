// Libraries of CUDA that are opened when they are first needed.
#pragma once

#include <dlfcn.h>

#include <initializer_list>
#include <string>

namespace llmeff::cuda {

class SharedLibrary {
 public:
  // The first of the names that the system's loader finds, on its paths or where CUDA is usually installed.
  static SharedLibrary open(std::initializer_list<const char*> names) {
    SharedLibrary library;
    for (const char* const folder : {"", "/usr/local/cuda/lib64/", "/opt/cuda/lib64/"})
      for (const char* const name : names) {
        library.handle_ = dlopen(std::string(folder).append(name).c_str(), RTLD_NOW | RTLD_LOCAL);
        if (library.handle_ != nullptr) return library;
        if (library.why_.empty()) library.why_ = dlerror();
      }
    return library;
  }

  explicit operator bool() const { return handle_ != nullptr; }
  const std::string& why() const { return why_; }  // it could not be opened
  template <class F>
  bool find(F*& function, const char* name) const {
    function = reinterpret_cast<F*>(dlsym(handle_, name));
    return function != nullptr;
  }

 private:
  void* handle_ = nullptr;  // never closed
  std::string why_;
};

}  // namespace llmeff::cuda
