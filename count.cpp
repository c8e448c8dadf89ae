#include "counter.hpp"
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
using namespace bpe;
int main(int argc, char** argv) {
  std::size_t threads = atoi(argv[1]);
  for (int a = 2; a < argc; ++a) {
    std::ifstream f(argv[a], std::ios::binary);
    std::string s((std::istreambuf_iterator<char>(f)), {});
    double best = 1e9, fold=0; std::size_t n=0, mem=0;
    for (int r = 0; r < 5; ++r) {
      Counter c(Pattern::kLlama3, std::make_shared<SpecialTokens>(std::vector<std::string>{}, std::span<const Id>{}));
      auto t0 = std::chrono::steady_clock::now();
      const std::size_t B = 8 << 20;
      for (std::size_t at = 0; at < s.size();) {
        Bytes t((const std::uint8_t*)s.data() + at, std::min(B, s.size() - at));
        std::size_t cut = at + t.size() == s.size() ? t.size() : c.certain_part(t);
        t = t.first(cut);
        c.add({&t, 1}, 1, threads);
        at += cut;
      }
      auto t1 = std::chrono::steady_clock::now();
      mem = c.memory();
      n = c.counts().size();
      auto t2 = std::chrono::steady_clock::now();
      double d = std::chrono::duration<double>(t1 - t0).count();
      if (d < best) best = d, fold = std::chrono::duration<double>(t2 - t1).count();
    }
    printf("%-20s %8.1f MB/s  fold %.1f ms  words %zu  mem %.1f MB\n", argv[a], s.size() / best / 1e6, fold*1e3, n, mem / 1e6);
  }
}
