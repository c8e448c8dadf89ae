// Files in memory and the documents in them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/types.hpp"

namespace bpe {

// Splits a text at each `separator`, strips ASCII white space from the parts, and appends those that are not empty to
// `documents`, as bpe.corpus does with a file. Throws std::invalid_argument if the separator is empty.
void split_documents(Bytes text, std::string_view separator, std::vector<Bytes>& documents);

// The content of a file. A large regular file is mapped, so the system reads it from disk as it is accessed. Anything
// else, such as a pipe, is read at once. Holds no open file descriptor.
class FileContent {
 public:
    // Throws std::system_error if the file cannot be opened or read.
    explicit FileContent(const char* path);
    ~FileContent();
    FileContent(const FileContent&) = delete;
    FileContent& operator=(const FileContent&) = delete;

    Bytes bytes() const { return bytes_; }

 private:
    Bytes bytes_;
    std::vector<std::uint8_t> read_;
    bool mapped_ = false;
};

}  // namespace bpe
