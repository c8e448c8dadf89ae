// Counts on disk: runs of sorted words, which can be merged into one run.
//
// A run is the eight bytes "bpe-run1", followed by blocks; the last block is empty. A block is the number of its bytes
// and their checksum (8 bytes each, little-endian), followed by words. A word is its length and its count (seven bits
// to a byte, the lowest first), followed by its bytes. The words of a run are in lexicographic order.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "train/words.hpp"

namespace bpe {

// These functions throw std::system_error if a system call fails, and InputError if a file is damaged.

// Writes all words of a table. Needs 16 bytes of memory for each word.
void write_run(const WordCounts& words, const std::string& path);

// Merges several runs into one, adding up the counts of each word.
void merge_runs(const std::vector<std::string>& paths, const std::string& merged);

// Calls visit(word, count) for each word of a run, in order.
void visit_run(const std::string& path, const std::function<void(Bytes word, std::uint64_t count)>& visit);

}  // namespace bpe
