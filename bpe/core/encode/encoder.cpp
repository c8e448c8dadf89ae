#include "encode/encoder.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <iterator>
#include <thread>
#include <type_traits>

#include "base/threads.hpp"
#include "encode/cutter.hpp"

namespace bpe {

// The cache and the buffers that one call works with.
struct Encoder::Workspace {
    Workspace(const Vocabulary& vocabulary, const Kernel& kernel, std::size_t cache_bytes, std::size_t limit)
        : merger(vocabulary, kernel), cache(cache_bytes), cache_limit(limit) {}

    Interrupt* interrupt = nullptr;
    Merger merger;
    Pieces::Room pieces;
    PretokenCache cache;
    std::size_t cache_limit;  // the encoder's limit when this workspace was made
    IdBuffer ids;             // for callers that need ids only for a moment
    // For one batch.
    NormalRoom normal;
    SplitRoom split;
    std::uint64_t cuts[kBatch];
    std::uint32_t edges[kBatch + 1 + 8];
    std::uint64_t values[kBatch + 8];  // see Encoding; 0 if unknown
    Missing missing;
    // The pretokens that no table knows, and the jobs that merge them, which can be found by hash.
    std::uint32_t unseen[kBatch];
    std::size_t unseen_count;
    std::uint64_t hashes[kBatch];
    MergeJob jobs[kBatch];
    std::uint32_t number_of_job[kBatch];
    std::uint16_t job_of_hash[2 * kBatch] = {};  // 1 + job, or left over from an earlier batch
    struct {
        std::uint32_t number;
        std::uint32_t job;
    } repeats[kBatch];                                    // pretokens that equal that of an earlier job
    ZeroedArray<Id> fresh{kBatch * LongTable::kLongest};  // the ids that merging gives
};

Encoder::Loan::Loan(const Encoder& encoder)
    : encoder_(encoder), workspace_(encoder.first_idle_.exchange(nullptr)), exceptions_(std::uncaught_exceptions()) {
    if (workspace_) return;
    std::size_t cache_bytes, limit;
    {
        const std::lock_guard lock(encoder.mutex_);
        if (!encoder.idle_.empty()) {
            workspace_ = std::move(encoder.idle_.back());
            encoder.idle_.pop_back();
            return;
        }
        cache_bytes = encoder.share_of(encoder.workspaces_++);
        limit = encoder.cache_limit_;
    }
    workspace_ = std::make_unique<Workspace>(*encoder.vocabulary_, encoder.kernel_, cache_bytes, limit);
}

Encoder::Loan::~Loan() {
    if (workspace_->cache_limit != encoder_.cache_limit_) return;
    if (std::uncaught_exceptions() > exceptions_) {  // its buffers may be in any state, and large
        const std::lock_guard lock(encoder_.mutex_);
        if (encoder_.workspaces_ > 0) --encoder_.workspaces_;
        return;
    }
    watch(nullptr);
    workspace_->ids.trim(std::size_t{1} << 18);
    if (workspace_->pieces.symbols.capacity() > std::size_t{1} << 18) workspace_->pieces = {};
    Workspace* none = nullptr;
    if (encoder_.first_idle_.compare_exchange_strong(none, workspace_.get())) {
        workspace_.release();
        return;
    }
    const std::lock_guard lock(encoder_.mutex_);
    encoder_.idle_.push_back(std::move(workspace_));
}

void Encoder::Loan::watch(Interrupt* interrupt) const {
    workspace_->interrupt = interrupt;
    workspace_->merger.watch(interrupt);
    workspace_->pieces.interrupt = interrupt;
}

std::span<const Id> Encoder::Loan::encode(Bytes text, const AddedTokens* added, Interrupt* interrupt) const {
    watch(interrupt);
    IdBuffer& ids = workspace_->ids;
    ids.clear();
    // Room for the ids of nearly every text, so that they get large pages. Untouched memory costs nothing.
    constexpr std::size_t kLarge = std::size_t{1} << 22;
    if (text.size() >= kLarge) ids.reserve(text.size() / 2);
    encoder_.encode_with(*workspace_, text, Start::kText, added, ids);
    return {ids.data(), ids.size()};
}

Encoder::Encoder(std::shared_ptr<const Vocabulary> vocabulary, std::shared_ptr<const Splitter> splitter,
                 std::shared_ptr<const Normalizer> normalizer, const Kernel& kernel, std::size_t cache_limit)
    : vocabulary_(std::move(vocabulary)),
      splitter_(std::move(splitter)),
      normalizer_(std::move(normalizer)),
      scanned_(dynamic_cast<const ScannedSplitter*>(splitter_.get())),
      kernel_(kernel),
      cache_limit_(cache_limit) {}

Encoder::~Encoder() { delete first_idle_.load(); }

void Encoder::limit_cache(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    cache_limit_ = bytes;
    workspaces_ = 0;  // workspaces on loan are freed on return
    idle_.clear();
    delete first_idle_.exchange(nullptr);
}

// Returns the cache size of a workspace. The first workspace gets half of the limit, since many programs need only one.
// As many more as there are processors share the other half. Any further workspace gets the minimum.
std::size_t Encoder::share_of(std::size_t number) const {
    const std::size_t others = std::max(2u, std::thread::hardware_concurrency()) - 1;
    if (number > others) return PretokenCache::kLeastBytes;
    const std::size_t share = cache_limit_ / 2 / (number == 0 ? 1 : others);
    return std::clamp(share / 128 * 128, PretokenCache::kLeastBytes, PretokenCache::kMostBytes);
}

void Encoder::encode(Bytes text, const AddedTokens* added, IdBuffer& ids, Interrupt* interrupt, Start start) const {
    const Loan workspace(*this);
    workspace.watch(interrupt);
    encode_with(*workspace, text, start, added, ids);
}

void Encoder::encode_with(Workspace& workspace, Bytes text, Start start, const AddedTokens* added,
                          IdBuffer& ids) const {
    if (normalizer_) [[unlikely]]
        return encode_normalized(workspace, text, start, added, ids);
    if (!added || added->empty()) return encode_part(text, start, workspace, ids);
    added->split(
        text,
        [&](std::size_t begin, std::size_t end) {
            encode_part(text.subspan(begin, end - begin), begin ? Start::kPart : start, workspace, ids);
        },
        [&](AddedTokens::Match match) { ids.push(match.id); });
}

// As in `tokenizers`, each part between two early tokens is normalized by itself, and late tokens are searched for in
// the result.
void Encoder::encode_normalized(Workspace& workspace, Bytes text, Start start, const AddedTokens* added,
                                IdBuffer& ids) const {
    const auto on_token = [&](AddedTokens::Match match) { ids.push(match.id); };
    const auto on_part = [&](std::size_t begin, std::size_t end) {
        const Start first = begin ? Start::kPart : start;
        workspace.split.first_size.reset();
        if (first == Start::kText && splitter_->needs_first()) {
            workspace.split.first_size = normalizer_->first_size(text.subspan(begin, end - begin), workspace.normal);
        }
        const Bytes part =
            normalizer_->apply(text.subspan(begin, end - begin), first != Start::kInside, workspace.normal);
        if (!added) return encode_part(part, first, workspace, ids);
        added->split_late(
            part,
            [&](std::size_t from, std::size_t to) {
                encode_part(part.subspan(from, to - from), from ? Start::kPart : first, workspace, ids);
            },
            on_token);
    };
    if (added) return added->split_early(text, on_part, on_token);
    if (!text.empty()) on_part(0, text.size());
}

// A scanner is called without the splitter around it, which saves a virtual call for each short text.
void Encoder::encode_part(Bytes text, Start start, Workspace& workspace, IdBuffer& ids) const {
    if (!scanned_) [[unlikely]]
        return encode_split(text, start, workspace, ids);
    std::uint64_t* const ends = workspace.split.ends;
    while (!text.empty()) {
        const std::size_t count = scanned_->scan()(scanned_->pattern(), text.data(), 0, text.size(), ends, kBatch);
        encode_pieces(text, {ends, count}, workspace, ids);
        text = text.subspan(ends[count - 1]);
        if (workspace.interrupt) workspace.interrupt->poll();
    }
}

// `encode_part` with any splitter.
[[gnu::noinline]] void Encoder::encode_split(Bytes text, Start start, Workspace& workspace, IdBuffer& ids) const {
    for (std::size_t position = 0; position < text.size();) {
        const Pretokens pretokens = splitter_->next(text, position, start, workspace.split);
        if (vocabulary_->pieces() && !vocabulary_->pieces()->takes_whole()) {
            encode_cut(pretokens, workspace, ids);
        } else {
            encode_pieces(pretokens.text, pretokens.ends, workspace, ids);
        }
        position = pretokens.next;
        if (workspace.interrupt) workspace.interrupt->poll();
    }
}

void Encoder::encode_pretokens(Bytes text, std::span<const std::uint64_t> ends, IdBuffer& ids) const {
    const Loan workspace(*this);
    encode_pieces(text, ends, *workspace, ids);
}

// Encodes pretokens in the smallest parts that no merge crosses, so that the tables hold few bytes for each.
void Encoder::encode_cut(const Pretokens& pretokens, Workspace& workspace, IdBuffer& ids) const {
    const Pieces& pieces = *vocabulary_->pieces();
    std::uint64_t first = 0;  // the start of the first part in `cuts`
    std::uint64_t begin = 0;
    std::size_t count = 0;
    const auto encode_cuts = [&] {
        if (count) encode_pieces(pretokens.text.subspan(first), {workspace.cuts, count}, workspace, ids);
        first = begin;
        count = 0;
    };
    for (const std::uint64_t end : pretokens.ends) {
        while (begin < end) {
            std::uint64_t* const cuts = workspace.cuts + count;
            const std::size_t more = pieces.cut(pretokens.text.subspan(begin, end - begin), cuts, kBatch - count);
            std::for_each(cuts, cuts + more, [&](std::uint64_t& cut) { cut += begin - first; });
            count += more;
            begin = first + workspace.cuts[count - 1];
            if (count == kBatch) encode_cuts();
        }
    }
    encode_cuts();
}

// Lays the pretokens side by side, which makes them a text with known ends.
void Encoder::encode_pretokens(std::span<const Bytes> pretokens, IdBuffer& ids, Interrupt* interrupt) const {
    const Loan workspace(*this);
    workspace.watch(interrupt);
    std::vector<std::uint8_t> text;
    std::vector<std::uint64_t> ends;
    for (const Bytes pretoken : pretokens) {
        if (pretoken.empty()) continue;
        text.insert(text.end(), pretoken.begin(), pretoken.end());
        ends.push_back(text.size());
    }
    encode_pieces(text, ends, *workspace, ids);
}

// Encodes text[0, ends.back()) in batches whose edges are below 2^31. `ends` are the ends of its pretokens.
void Encoder::encode_pieces(Bytes text, std::span<const std::uint64_t> ends, Workspace& workspace,
                            IdBuffer& ids) const {
    constexpr std::uint64_t kLongestBatch = std::uint64_t{1} << 31;
    std::uint64_t begin = 0;
    for (std::size_t first = 0; first < ends.size();) {
        std::size_t count = std::min(kBatch, ends.size() - first);
        while (count > 0 && ends[first + count - 1] - begin >= kLongestBatch) --count;
        if (count) {
            workspace.edges[0] = 0;
            for (std::size_t i = 0; i < count; ++i) {
                workspace.edges[i + 1] = static_cast<std::uint32_t>(ends[first + i] - begin);
            }
            encode_batch({text.data() + begin, text.size() - begin, workspace.edges, count}, workspace, ids);
        } else {  // a single pretoken is as long as that
            const Bytes pretoken = text.subspan(begin, ends[first] - begin);
            ids.reserve(pretoken.size());
            ids.advance(encode_afresh(pretoken, workspace, ids.end()));
            count = 1;
        }
        first += count;
        begin = ends[first - 1];
    }
}

void Encoder::encode_batch(const Batch& batch, Workspace& workspace, IdBuffer& ids) const {
    PretokenCache& cache = workspace.cache;
    Missing& missing = workspace.missing;
    kernel_.probe(batch, cache.fronts(), workspace.values, missing);
    workspace.unseen_count = 0;
    cache.store.begin_batch();
    look_up(cache.short_table, {missing.shorts, missing.short_count}, batch, workspace);
    look_up(cache.medium_table, {missing.mediums, missing.medium_count}, batch, workspace);
    look_up(cache.long_table, {missing.longs, missing.long_count}, batch, workspace);
    if (workspace.unseen_count) encode_unseen(batch, workspace);
    write(batch, workspace, ids);
}

// Sets the values of the pretokens with these numbers, which are of the table's class of lengths, and lists those that
// the table does not know. Prefetches memory well before it is read, so that the waits overlap.
template <class Table>
void Encoder::look_up(Table& table, std::span<const std::uint32_t> numbers, const Batch& batch,
                      Workspace& workspace) const {
    PretokenCache& cache = workspace.cache;
    constexpr std::size_t kAhead = 64;
    typename Table::Key keys[kAhead];
    typename Table::Bucket* buckets[kAhead];
    for (; !numbers.empty(); numbers = numbers.subspan(std::min(kAhead, numbers.size()))) {
        const std::size_t count = std::min(kAhead, numbers.size());
        for (std::size_t k = 0; k < count; ++k) {
            keys[k] = Table::key_of(batch, numbers[k]);
            buckets[k] = &table.bucket(keys[k]);
            __builtin_prefetch(buckets[k]);
            if (sizeof(typename Table::Bucket) > 64) __builtin_prefetch(reinterpret_cast<char*>(buckets[k]) + 64);
        }
        if constexpr (std::is_same_v<Table, LongTable>) {
            for (std::size_t k = 0; k < count; ++k) LongTable::prefetch(*buckets[k], keys[k], cache.store);
        }
        for (std::size_t k = 0; k < count; ++k) {
            const std::uint32_t i = numbers[k];
            const Encoding found = Table::find(*buckets[k], keys[k], batch, i, cache.store);
            workspace.values[i] = found.bits();
            workspace.unseen[workspace.unseen_count] = i;
            workspace.unseen_count += !found.known() & (batch.length(i) <= LongTable::kLongest);
            if constexpr (!std::is_same_v<Table, LongTable>) {
                if (found.is_inline()) cache.put_in_front(keys[k], found);
                if (found.is_stored()) __builtin_prefetch(cache.store.at(found.place()));
            }
        }
    }
}

// Encodes the pretokens that no table knows, and adds them to the tables.
void Encoder::encode_unseen(const Batch& batch, Workspace& workspace) const {
    PretokenCache& cache = workspace.cache;
    const std::span unseen(workspace.unseen, workspace.unseen_count);
    std::uint64_t* hashes = workspace.hashes;
    const auto remember = [&](std::uint32_t i, std::span<const Id> ids) {
        if (ids.size() <= Encoding::kMostIds) workspace.values[i] = cache.put(batch, i, ids).bits();
    };

    // 1. Look up each pretoken as a whole token, as the reference does. In a merges-only vocabulary, find_whole skips
    // the tokens that merging cannot make. Make one job for all equal pretokens among the others.
    for (std::size_t u = 0; u < unseen.size(); ++u) {
        const Bytes pretoken = batch[unseen[u]];
        hashes[u] = hash_bytes(pretoken.data(), pretoken.size());
        vocabulary_->prefetch_find(hashes[u]);
    }
    for (std::size_t u = 0; u < unseen.size(); ++u) vocabulary_->prefetch_token(hashes[u]);
    std::size_t jobs = 0;
    std::size_t repeats = 0;
    Id* room = workspace.fresh.data();
    for (std::size_t u = 0; u < unseen.size(); ++u) {
        const std::uint32_t i = unseen[u];
        const Bytes pretoken = batch[i];
        const Id whole = vocabulary_->find_whole(pretoken.data(), pretoken.size(), hashes[u]);
        if (whole != kNoId) {
            remember(i, {&whole, 1});
            continue;
        }
        std::uint16_t& job = workspace.job_of_hash[hashes[u] % std::size(workspace.job_of_hash)];
        if (job && job <= jobs && std::ranges::equal(batch[workspace.number_of_job[job - 1]], pretoken)) {
            workspace.repeats[repeats++] = {i, job - 1u};
            continue;
        }
        workspace.jobs[jobs] = {pretoken.data(), pretoken.size(), room, 0};
        workspace.number_of_job[jobs] = i;
        job = static_cast<std::uint16_t>(++jobs);
        room += pretoken.size();
    }

    // 2. Merge.
    merge_unseen(workspace, jobs);
    for (std::size_t j = 0; j < jobs; ++j) {
        remember(workspace.number_of_job[j], {workspace.jobs[j].ids, workspace.jobs[j].count});
    }
    for (const auto [i, job] : std::span(workspace.repeats, repeats)) {
        workspace.values[i] = workspace.values[workspace.number_of_job[job]];
    }
}

// Merges the first jobs of the workspace.
void Encoder::merge_unseen(Workspace& workspace, std::size_t jobs) const {
    const Pieces* const pieces = vocabulary_->pieces();
    if (!pieces) return workspace.merger.merge({workspace.jobs, jobs});
    for (MergeJob& job : std::span(workspace.jobs, jobs)) {
        job.count = pieces->encode({job.bytes, job.size}, workspace.pieces, job.ids);
    }
}

// Writes the ids of all pretokens in order. A byte gives at most one id, and up to 16 ids are written at once.
void Encoder::write(const Batch& batch, Workspace& workspace, IdBuffer& ids) const {
    ids.reserve(batch.edges[batch.size] + 16);
    Id* out = ids.end();
    for (std::size_t i = 0;;) {
        i = kernel_.write(workspace.values, i, batch.size, out);
        for (const std::size_t four = std::min(i + 4, batch.size); i < four; ++i) {
            const Encoding encoding(workspace.values[i]);
            if (encoding.is_inline()) {
                for (std::size_t k = 0; k < kInlineIds; ++k) out[k] = encoding.inline_id(k);
                out += encoding.inline_count();
            } else if (encoding.known()) {  // four by four: the ids are few, and this avoids a call
                const std::size_t count = encoding.stored_count();
                const Id* from = workspace.cache.store.at(encoding.place());
                for (std::size_t k = 0; k < count; k += 4) std::memcpy(out + k, from + k, 4 * sizeof(Id));
                out += count;
            } else {  // too long for the tables
                out += encode_afresh(batch[i], workspace, out);
            }
        }
        if (i == batch.size) break;
    }
    ids.advance(static_cast<std::size_t>(out - ids.end()));
}

// Encodes a pretoken without the tables: as a whole token if it is one, as the reference does, else by merging. `ids`
// must have room for pretoken.size() ids. Returns the number of ids.
std::size_t Encoder::encode_afresh(Bytes pretoken, Workspace& workspace, Id* ids) const {
    if (vocabulary_->pieces()) return vocabulary_->pieces()->encode(pretoken, workspace.pieces, ids);
    const std::uint64_t hash = hash_bytes(pretoken.data(), pretoken.size());
    const Id whole = vocabulary_->find_whole(pretoken.data(), pretoken.size(), hash);
    if (whole == kNoId) return workspace.merger.merge(pretoken.data(), pretoken.size(), ids);
    *ids = whole;
    return 1;
}

// The ids do not depend on which thread takes which block: a piece has the same ids by itself as within its text (see
// cutter.hpp).
EncodedTexts Encoder::encode_all(std::span<const Bytes> texts, const AddedTokens* added, std::size_t threads,
                                 Interrupt* interrupt) const {
    if (added && added->empty()) added = nullptr;
    const Cutter cutter(*splitter_, normalizer_.get(), added);
    Plan plan(texts, [&](Bytes text, std::size_t position) { return cutter.next_cut(text, position); }, threads);
    const std::span<Block> blocks = plan.blocks();
    threads = std::clamp<std::size_t>(threads, 1, std::min(kMostThreads, std::max<std::size_t>(1, blocks.size())));
    std::vector<std::int64_t> offsets(texts.size() + 1);
    std::vector<IdStore> stores(threads);
    std::atomic<std::size_t> next = 0;
    const auto work = [&](std::size_t thread) {
        const Loan workspace(*this);
        workspace.watch(interrupt);
        IdBuffer ids;  // reused for each block, so that it stays in the cache
        for (std::size_t i; (i = next++) < blocks.size();) {
            Block& block = blocks[i];
            ids.clear();
            for (const Piece& piece : block.pieces) {
                encode_with(*workspace, piece.bytes, piece.first ? Start::kText : Start::kInside, added, ids);
                if (piece.last)
                    offsets[piece.text + 1] = static_cast<std::int64_t>(ids.size());  // so far within the block
            }
            block.ids = stores[thread].keep(ids.data(), ids.size());
            block.count = ids.size();
        }
    };
    on_threads(threads, work, interrupt);
    return EncodedTexts(std::move(plan), std::move(stores), std::move(offsets), threads);
}

}  // namespace bpe
