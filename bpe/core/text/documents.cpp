#include "text/documents.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <system_error>

#if defined(__unix__) || defined(__APPLE__)
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#define BPE_CAN_MAP
#endif
#ifdef _WIN32
#include <filesystem>
#endif

namespace bpe {

void split_documents(Bytes text, std::string_view separator, std::vector<Bytes>& documents) {
    if (separator.empty()) throw std::invalid_argument("the document separator is empty");
    constexpr std::string_view kSpace = " \t\n\r\v\f";
    const std::string_view whole(reinterpret_cast<const char*>(text.data()), text.size());
    for (std::size_t begin = 0; begin <= whole.size();) {
        const std::size_t end = std::min(whole.find(separator, begin), whole.size());
        const std::string_view part = whole.substr(begin, end - begin);
        const std::size_t first = part.find_first_not_of(kSpace);
        if (first != part.npos) {
            documents.push_back(text.subspan(begin + first, part.find_last_not_of(kSpace) + 1 - first));
        }
        begin = end + separator.size();
    }
}

namespace {

[[noreturn]] void fail_with_errno() { throw std::system_error(errno, std::generic_category()); }

}  // namespace

#ifdef BPE_CAN_MAP

namespace {

struct Descriptor {
    int number;
    ~Descriptor() { close(number); }
};

}  // namespace

FileContent::FileContent(const char* path) {
    const Descriptor file{open(path, O_RDONLY | O_CLOEXEC)};
    if (file.number < 0) fail_with_errno();
    struct stat status;
    if (fstat(file.number, &status) != 0) fail_with_errno();
    // Reading a small file is faster than mapping it. Files in /proc report a size of 0, so only reading finds their
    // end.
    constexpr off_t kSmall = 1 << 15;
    if (S_ISREG(status.st_mode) && status.st_size > kSmall) {
        const auto size = static_cast<std::size_t>(status.st_size);
        void* memory = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.number, 0);
        if (memory != MAP_FAILED) {
            bytes_ = {static_cast<const std::uint8_t*>(memory), size};
            mapped_ = true;
            return;
        }
    }
    for (std::size_t size = 0;;) {
        read_.resize(size + std::max<std::size_t>(size / 2, S_ISREG(status.st_mode) ? status.st_size + 1 : 1 << 16));
        const ssize_t count = read(file.number, read_.data() + size, read_.size() - size);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) fail_with_errno();
        size += static_cast<std::size_t>(count);
        if (count == 0) {
            bytes_ = std::span(read_).first(size);
            return;
        }
    }
}

FileContent::~FileContent() {
    if (mapped_) munmap(const_cast<std::uint8_t*>(bytes_.data()), bytes_.size());
}

#else

FileContent::FileContent(const char* path) {
#ifdef _WIN32
    // Python gives names in UTF-8, which fopen does not take on Windows.
    const std::filesystem::path wide(reinterpret_cast<const char8_t*>(path));
    std::FILE* file = _wfopen(wide.c_str(), L"rb");
#else
    std::FILE* file = std::fopen(path, "rb");
#endif
    if (!file) fail_with_errno();
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> closing(file, std::fclose);
    for (std::size_t size = 0;;) {
        read_.resize(size + std::max<std::size_t>(size / 2, 1 << 16));
        const std::size_t count = std::fread(read_.data() + size, 1, read_.size() - size, file);
        size += count;
        if (count == 0) {
            if (std::ferror(file)) fail_with_errno();
            bytes_ = std::span(read_).first(size);
            return;
        }
    }
}

FileContent::~FileContent() = default;

#endif

}  // namespace bpe
