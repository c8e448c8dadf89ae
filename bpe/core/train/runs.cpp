#include "train/runs.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <queue>
#include <string_view>
#include <system_error>

#include "base/errors.hpp"
#include "base/hash.hpp"
#include "base/memory.hpp"
#include "kernels/keys.hpp"

namespace bpe {

namespace {

constexpr std::string_view kMagic = "bpe-run1";
constexpr std::size_t kBlockSize = std::size_t{1} << 16;

struct CloseFile {
    void operator()(std::FILE* file) const { std::fclose(file); }
};
using FileHandle = std::unique_ptr<std::FILE, CloseFile>;

[[noreturn]] void fail(const std::string& path) { throw std::system_error(errno, std::generic_category(), path); }

FileHandle open_file(const std::string& path, const char* mode) {
    FileHandle file(std::fopen(path.c_str(), mode));
    if (!file) fail(path);
    return file;
}

class RunWriter {
 public:
    explicit RunWriter(const std::string& path) : path_(path), file_(open_file(path, "wb")) {
        write(reinterpret_cast<const std::uint8_t*>(kMagic.data()), kMagic.size());
    }

    void add(Bytes word, std::uint64_t count) {
        add_number(word.size());
        add_number(count);
        block_.append(word.data(), word.size());
        if (block_.size() >= kBlockSize) write_block();
    }

    void finish() {
        if (block_.size()) write_block();
        write_block();
        if (std::fclose(file_.release())) fail(path_);
    }

 private:
    void add_number(std::uint64_t value) {
        for (; value >= 0x80; value >>= 7) block_.push(static_cast<std::uint8_t>(value | 0x80));
        block_.push(static_cast<std::uint8_t>(value));
    }
    void write_block() {
        std::uint8_t head[16];
        const std::uint64_t sum = hash_bytes(block_.data(), block_.size());
        for (int i = 0; i < 8; ++i) {
            head[i] = static_cast<std::uint8_t>(std::uint64_t{block_.size()} >> 8 * i);
            head[8 + i] = static_cast<std::uint8_t>(sum >> 8 * i);
        }
        write(head, sizeof head);
        write(block_.data(), block_.size());
        block_.clear();
    }
    void write(const std::uint8_t* bytes, std::size_t size) {
        if (size && std::fwrite(bytes, 1, size, file_.get()) != size) fail(path_);
    }

    std::string path_;
    FileHandle file_;
    Buffer<std::uint8_t> block_;
};

// Reads a run word by word. `word` is valid until the next call of `next`.
class RunReader {
 public:
    explicit RunReader(const std::string& path)
        : path_(path), file_(open_file(path, "rb")), file_size_(std::filesystem::file_size(path)) {
        std::uint8_t magic[8];
        read(magic, sizeof magic);
        if (std::memcmp(magic, kMagic.data(), sizeof magic) != 0) damaged();
    }

    Bytes word;
    std::uint64_t count = 0;

    // Reads the next word and its count. Returns false at the end of the run.
    bool next() {
        if (at_ == block_.size() && !read_block()) return false;
        const std::uint64_t size = number();
        count = number();
        if (!size || !count || size > block_.size() - at_) damaged();
        word = {block_.data() + at_, size};
        at_ += size;
        return true;
    }

 private:
    [[noreturn]] void damaged() const {
        throw InputError(path_ + ": the counts in this file are damaged; begin anew in another directory");
    }
    void read(std::uint8_t* bytes, std::size_t size) {
        if (std::fread(bytes, 1, size, file_.get()) == size) return;
        if (std::ferror(file_.get())) fail(path_);
        damaged();
    }
    bool read_block() {
        std::uint8_t head[16];
        read(head, sizeof head);
        std::uint64_t size = 0, sum = 0;
        for (int i = 7; i >= 0; --i) {
            size = size << 8 | head[i];
            sum = sum << 8 | head[8 + i];
        }
        if (size > file_size_) damaged();
        block_.resize(size);
        if (size) read(block_.data(), size);
        if (hash_bytes(block_.data(), size) != sum) damaged();
        at_ = 0;
        return size > 0;
    }
    std::uint64_t number() {
        std::uint64_t value = 0;
        for (unsigned shift = 0; shift < 64; shift += 7) {
            if (at_ == block_.size()) damaged();
            const std::uint8_t byte = block_[at_++];
            value |= std::uint64_t{byte & 0x7Fu} << shift;
            if (!(byte & 0x80)) return value;
        }
        damaged();
    }

    std::string path_;
    FileHandle file_;
    std::uint64_t file_size_;
    Buffer<std::uint8_t> block_;
    std::size_t at_ = 0;
};

// Returns a negative number, 0 or a positive number, as memcmp does.
int compare(Bytes a, Bytes b) {
    const std::size_t size = std::min(a.size(), b.size());
    const int order = size ? std::memcmp(a.data(), b.data(), size) : 0;
    return order ? order : (a.size() > b.size()) - (a.size() < b.size());
}

}  // namespace

// Nearly all comparisons need only the first eight bytes of the words, so the sorted array holds these.
void write_run(const WordCounts& words, const std::string& path) {
    struct SortedWord {
        std::uint64_t first;  // eight bytes, padded with zeros, big-endian
        std::uint32_t number;
    };
    std::vector<SortedWord> order;
    order.reserve(words.size());
    for (std::uint32_t number = 1; number <= words.size(); ++number) {
        if (!words.count_of(number)) continue;
        const Bytes word = words.bytes_of(number);
        std::uint8_t first[8] = {};
        std::memcpy(first, word.data(), std::min<std::size_t>(word.size(), 8));
        order.push_back({__builtin_bswap64(load_word(first)), number});
    }
    std::sort(order.begin(), order.end(), [&](const SortedWord& a, const SortedWord& b) {
        if (a.first != b.first) return a.first < b.first;
        return compare(words.bytes_of(a.number), words.bytes_of(b.number)) < 0;
    });
    RunWriter writer(path);
    for (const SortedWord& word : order) writer.add(words.bytes_of(word.number), words.count_of(word.number));
    writer.finish();
}

void merge_runs(const std::vector<std::string>& paths, const std::string& merged) {
    std::vector<std::unique_ptr<RunReader>> readers;
    const auto later = [&](std::size_t a, std::size_t b) { return compare(readers[a]->word, readers[b]->word) > 0; };
    std::priority_queue<std::size_t, std::vector<std::size_t>, decltype(later)> queue(later);
    for (const std::string& path : paths) {
        readers.push_back(std::make_unique<RunReader>(path));
        if (readers.back()->next()) queue.push(readers.size() - 1);
    }
    RunWriter writer(merged);
    std::vector<std::uint8_t> word;
    std::uint64_t count = 0;
    while (!queue.empty()) {
        RunReader& reader = *readers[queue.top()];
        if (compare(reader.word, word) != 0) {
            if (count) writer.add(word, count);
            word.assign(reader.word.begin(), reader.word.end());
            count = 0;
        }
        count += reader.count;
        const std::size_t index = queue.top();
        queue.pop();
        if (reader.next()) queue.push(index);
    }
    if (count) writer.add(word, count);
    writer.finish();
}

void visit_run(const std::string& path, const std::function<void(Bytes word, std::uint64_t count)>& visit) {
    RunReader reader(path);
    while (reader.next()) visit(reader.word, reader.count);
}

}  // namespace bpe
