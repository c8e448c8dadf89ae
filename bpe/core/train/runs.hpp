// Counts on disk: runs of words in order, which are merged into one.
//
// A run is the eight bytes "bpe-run1" and blocks, of which the last is empty. A block is the number of its bytes and
// their checksum, 8 bytes each, the lowest first, and then words, in lexicographic order of their bytes over the whole
// run: length and count, seven bits to a byte, the lowest first, and the bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/errors.hpp"
#include "train/words.hpp"

namespace bpe {

// All of these throw std::system_error where the system fails, and InputError where a file is damaged.

// Writes all words of a table. Takes 16 bytes of memory for each word.
void write_run(const WordCounts& words, const std::string& path);

// Writes one run with the words of several, whose counts are added up.
void merge_runs(const std::vector<std::string>& paths, const std::string& merged);

// Calls visit(word, count) for each word of a run.
void visit_run(const std::string& path, const std::function<void(Bytes word, std::uint64_t count)>& visit);

}  // namespace bpe
