// Files and the documents in them, as spans of memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace bpe {

// The parts of a text between the places where `separator` stands, without ASCII white space around them and without
// those that are empty then: what corpus.py makes of a file. Throws std::invalid_argument for an empty separator.
void split_documents(std::span<const std::uint8_t> text, std::string_view separator,
                     std::vector<std::span<const std::uint8_t>>& documents);

// The content of a file, which the system reads from disk when it is looked at. What cannot be mapped, such as a pipe,
// is read. It takes no file descriptor while it lives.
class FileContent {
 public:
    // Throws std::system_error.
    explicit FileContent(const char* path);
    ~FileContent();
    FileContent(const FileContent&) = delete;
    FileContent& operator=(const FileContent&) = delete;

    std::span<const std::uint8_t> bytes() const { return bytes_; }

 private:
    std::span<const std::uint8_t> bytes_;
    std::vector<std::uint8_t> read_;
    bool mapped_ = false;
};

}  // namespace bpe
