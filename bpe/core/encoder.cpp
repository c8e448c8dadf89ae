#include "encoder.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <type_traits>

#include "threads.hpp"

namespace bpe {

namespace {

constexpr std::size_t kBatch = 256;  // pretokens that are scanned before any is looked up
static_assert(most_stored(kBatch) <= Store::kSlack);

}  // namespace

// What is looked up in one table for a batch, by the numbers of the pretokens in it.
template <class Table>
struct Lookups {
    typename Table::Key keys[kBatch];
    typename Table::Bucket* buckets[kBatch];
};

// What one call works with.
struct Encoder::Workspace {
    explicit Workspace(const Vocabulary& vocabulary) : merger(vocabulary) {}

    Merger merger;
    PretokenCache cache;
    // One batch.
    std::uint64_t edges[kBatch + 1];
    Encoding found[kBatch];
    Lookups<ShortTable> shorts;
    Lookups<MediumTable> mediums;
    Lookups<LongTable> longs;
    MergeJob jobs[kBatch];
    std::vector<Id> fresh = std::vector<Id>(kBatch * LongTable::kLongest);  // what merging makes of the missing ones
};

// Consecutive pretokens of a text: number i stands from edges[i] to edges[i + 1].
struct Encoder::Batch {
    Bytes text;
    std::span<const std::uint64_t> edges;

    std::size_t size() const { return edges.size() - 1; }
    std::size_t length(std::size_t i) const { return edges[i + 1] - edges[i]; }
    Pretoken operator[](std::size_t i) const { return {text.data() + edges[i], length(i), text.size() - edges[i]}; }
};

// Holds a workspace that no other call uses.
class Encoder::Loan {
 public:
    explicit Loan(const Encoder& encoder) : encoder_(encoder) {
        {
            const std::lock_guard lock(encoder.mutex_);
            if (!encoder.idle_.empty()) {
                workspace_ = std::move(encoder.idle_.back());
                encoder.idle_.pop_back();
            }
        }
        if (!workspace_) workspace_ = std::make_unique<Workspace>(*encoder.vocabulary_);
    }
    Loan(const Loan&) = delete;
    Loan& operator=(const Loan&) = delete;
    ~Loan() {
        const std::lock_guard lock(encoder_.mutex_);
        encoder_.idle_.push_back(std::move(workspace_));
    }
    Workspace& operator*() const { return *workspace_; }

 private:
    const Encoder& encoder_;
    std::unique_ptr<Workspace> workspace_;
};

Encoder::Encoder(std::shared_ptr<const Vocabulary> vocabulary, Pattern pattern)
    : vocabulary_(std::move(vocabulary)), pattern_(pattern) {}

Encoder::~Encoder() = default;

void Encoder::encode(Bytes text, const SpecialTokens* special, IdBuffer& ids) const {
    const Loan workspace(*this);
    encode_with(*workspace, text, special, ids);
}

void Encoder::encode_with(Workspace& workspace, Bytes text, const SpecialTokens* special, IdBuffer& ids) const {
    if (!special || special->empty()) return encode_part(text, workspace, ids);
    for (std::size_t begin = 0;;) {
        const SpecialTokens::Match match = special->find(text, begin);
        encode_part(text.subspan(begin, match.begin - begin), workspace, ids);
        if (match.begin == text.size()) return;
        ids.push(match.id);
        begin = match.end;
    }
}

void Encoder::encode_part(Bytes text, Workspace& workspace, IdBuffer& ids) const {
    std::uint64_t* edges = workspace.edges;
    for (edges[0] = 0; edges[0] < text.size();) {
        const std::size_t count = scan(pattern_, text.data(), edges[0], text.size(), edges + 1, kBatch);
        encode_batch({text, {edges, count + 1}}, workspace, ids);
        edges[0] = edges[count];
    }
}

// Pretokens that were cut elsewhere are laid side by side, and then are a text with known edges.
void Encoder::encode_pretokens(std::span<const Bytes> pretokens, IdBuffer& ids) const {
    const Loan workspace(*this);
    std::vector<std::uint8_t> text;
    std::vector<std::uint64_t> edges{0};
    for (const Bytes pretoken : pretokens) {
        if (pretoken.empty()) continue;
        text.insert(text.end(), pretoken.begin(), pretoken.end());
        edges.push_back(text.size());
    }
    for (std::size_t first = 0; first + 1 < edges.size(); first += kBatch) {
        const std::size_t count = std::min(kBatch, edges.size() - 1 - first);
        encode_batch({text, std::span(edges).subspan(first, count + 1)}, *workspace, ids);
    }
}

void Encoder::encode_batch(const Batch& batch, Workspace& workspace, IdBuffer& ids) const {
    // 1. Look all pretokens up as if they were short, as most are, and list those that are not. Which class the next
    // one has cannot be predicted, so nothing branches on it (hence & in place of &&). Memory is asked for well before
    // it is looked at, so that the waits for it overlap.
    PretokenCache& cache = workspace.cache;
    ShortTable::Key keys[kBatch];
    ShortTable::Recent* recents[kBatch];
    std::uint32_t short_numbers[kBatch], medium_numbers[kBatch], long_numbers[kBatch];
    std::size_t shorts = 0, mediums = 0, longs = 0;
    const bool roomy = batch.edges[batch.size() - 1] + 8 <= batch.text.size();  // each may be read as a word
    for (std::uint32_t i = 0; i < batch.size(); ++i) {
        const Pretoken pretoken = batch[i];
        keys[i] = roomy ? ShortTable::key_of_start(pretoken) : ShortTable::key_of(pretoken.start());
        recents[i] = &cache.short_table.recent(keys[i]);
        __builtin_prefetch(recents[i]);
        medium_numbers[mediums] = long_numbers[longs] = i;
        mediums += (pretoken.length > ShortTable::kLongest) & (pretoken.length <= MediumTable::kLongest);
        longs += pretoken.length > MediumTable::kLongest;
    }
    for (std::uint32_t i = 0; i < batch.size(); ++i) {
        const Encoding found = recents[i]->value.where(recents[i]->key == keys[i]);
        workspace.found[i] = found.where(cache.store.holds(found));
        short_numbers[shorts] = i;
        shorts += (workspace.found[i].count() == 0) & (batch.length(i) <= ShortTable::kLongest);
    }
    look_up(cache.short_table, workspace.shorts, {short_numbers, shorts}, batch, workspace);
    for (const std::uint32_t i : std::span(short_numbers, shorts)) *recents[i] = {keys[i], workspace.found[i]};

    // 2. The longer ones.
    look_up(cache.medium_table, workspace.mediums, {medium_numbers, mediums}, batch, workspace);
    look_up(cache.long_table, workspace.longs, {long_numbers, longs}, batch, workspace);

    // 3. Write all, in order. Two ids are written always, and the end moves by as many as there are. There is room, as
    // a byte makes one id at most, and four are written at once.
    ids.reserve(batch.edges.back() - batch.edges.front() + 4);
    Id* out = ids.end();
    for (std::size_t i = 0; i < batch.size(); ++i) {
        const Encoding encoding = workspace.found[i];
        const std::size_t count = encoding.count();
        out[0] = encoding.first();
        out[1] = encoding.second();
        if (count - 1 >= Encoding::kInline) [[unlikely]] {
            if (count) {  // four by four, which needs no call for the few that there are
                const Id* from = cache.store.at(encoding.place());
                for (std::size_t k = 0; k < count; k += 4) std::memcpy(out + k, from + k, 4 * sizeof(Id));
            } else {  // too long to be remembered
                out += encode_afresh(batch[i].span(), workspace.merger, out);
            }
        }
        out += count;
    }
    ids.advance(static_cast<std::size_t>(out - ids.end()));
}

// Finds the encodings of the pretokens with these numbers, which are of the table's class or longer.
template <class Table>
void Encoder::look_up(Table& table, Lookups<Table>& lookups, std::span<const std::uint32_t> numbers, const Batch& batch,
                      Workspace& workspace) const {
    for (const std::uint32_t i : numbers) {
        lookups.keys[i] = Table::key_of(batch[i]);
        lookups.buckets[i] = &table.bucket(lookups.keys[i]);
        __builtin_prefetch(lookups.buckets[i]);
        if (sizeof(typename Table::Bucket) > 64) __builtin_prefetch(reinterpret_cast<char*>(lookups.buckets[i]) + 64);
    }
    if constexpr (std::is_same_v<Table, LongTable>) {
        for (const std::uint32_t i : numbers) {
            LongTable::prefetch(*lookups.buckets[i], lookups.keys[i], workspace.cache.store);
        }
    }
    std::uint32_t missing[kBatch];
    std::size_t misses = 0;
    for (const std::uint32_t i : numbers) {
        workspace.found[i] = Table::find(*lookups.buckets[i], lookups.keys[i], batch[i], workspace.cache.store);
        missing[misses] = i;
        misses += (workspace.found[i].count() == 0) & (batch.length(i) <= Table::kLongest);
    }
    if (misses) encode_missing(lookups, {missing, misses}, batch, workspace);
}

// Encodes the pretokens with these numbers, the whole of each first, as the reference does, and puts them into the
// table.
template <class Table>
void Encoder::encode_missing(Lookups<Table>& lookups, std::span<const std::uint32_t> numbers, const Batch& batch,
                             Workspace& workspace) const {
    std::uint64_t hashes[kBatch];
    for (std::size_t m = 0; m < numbers.size(); ++m) {
        const Pretoken pretoken = batch[numbers[m]];
        hashes[m] = hash_bytes(pretoken.bytes, pretoken.length);
        vocabulary_->prefetch_find(hashes[m]);
    }
    const auto remember = [&](std::uint32_t i, std::span<const Id> ids) {
        if (ids.size() > Encoding::kMostIds) return;
        Store& store = workspace.cache.store;
        Encoding& found = workspace.found[i];
        found = Table::find(*lookups.buckets[i], lookups.keys[i], batch[i], store);  // it may have been missing twice
        if (!found.count()) found = Table::put(*lookups.buckets[i], lookups.keys[i], batch[i], ids, store);
    };
    std::uint32_t of_job[kBatch];
    std::size_t jobs = 0;
    Id* room = workspace.fresh.data();
    for (std::size_t m = 0; m < numbers.size(); ++m) {
        const Pretoken pretoken = batch[numbers[m]];
        const Id whole = vocabulary_->find(pretoken.bytes, pretoken.length, hashes[m]);
        if (whole != kNoId) {
            remember(numbers[m], {&whole, 1});
            continue;
        }
        workspace.jobs[jobs] = {pretoken.bytes, pretoken.length, room, 0};
        of_job[jobs++] = numbers[m];
        room += pretoken.length;
    }
    workspace.merger.merge({workspace.jobs, jobs});
    for (std::size_t j = 0; j < jobs; ++j) remember(of_job[j], {workspace.jobs[j].ids, workspace.jobs[j].count});
}

// The whole pretoken first, as the reference does, then merging. There must be room for pretoken.size() ids.
std::size_t Encoder::encode_afresh(Bytes pretoken, Merger& merger, Id* ids) const {
    const Id whole = vocabulary_->find(pretoken.data(), pretoken.size());
    if (whole == kNoId) return merger.merge(pretoken.data(), pretoken.size(), ids);
    *ids = whole;
    return 1;
}

// Which thread takes which block does not show in the ids: a piece has those that it has in its text, see cuts.hpp.
EncodedTexts Encoder::encode_all(std::span<const Bytes> texts, const SpecialTokens* special,
                                 std::size_t threads) const {
    if (special && special->empty()) special = nullptr;
    Plan plan(pattern_, texts, special, threads);
    const std::span<Block> blocks = plan.blocks();
    threads = std::clamp<std::size_t>(threads, 1, std::min(kMostThreads, std::max<std::size_t>(1, blocks.size())));
    std::vector<std::int64_t> offsets(texts.size() + 1);
    std::vector<IdStore> stores(threads);
    std::atomic<std::size_t> next = 0;
    on_threads(threads, [&](std::size_t thread) {
        const Loan workspace(*this);
        IdBuffer ids;  // used again for each block, so that it stays near the processor
        for (std::size_t i; (i = next++) < blocks.size();) {
            Block& block = blocks[i];
            ids.clear();
            for (const Piece& piece : block.pieces) {
                encode_with(*workspace, piece.bytes, special, ids);
                if (piece.last) offsets[piece.text + 1] = static_cast<std::int64_t>(ids.size());  // within the block
            }
            block.ids = stores[thread].keep(ids.data(), ids.size());
            block.count = ids.size();
        }
    });
    return EncodedTexts(std::move(plan), std::move(stores), std::move(offsets), threads);
}

}  // namespace bpe
