// The Counter class of the Python module, and the functions that train on its counts.

#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "base/threads.hpp"
#include "bindings/python.hpp"
#include "encode/vocab_builder.hpp"
#include "train/counter.hpp"
#include "train/merge_loop.hpp"
#include "train/runs.hpp"

namespace bpe {

namespace {

nb::tuple all_counts(PretokenCounter& counter) {
    const WordCounts& words = counter.words();
    std::vector<std::uint8_t> bytes;
    std::vector<std::uint64_t> offsets{0};
    std::vector<std::uint64_t> counts;
    for (std::uint32_t number = 1; number <= words.size(); ++number) {
        const Bytes word = words.bytes_of(number);
        bytes.insert(bytes.end(), word.begin(), word.end());
        offsets.push_back(bytes.size());
        counts.push_back(words.count_of(number));
    }
    return nb::make_tuple(bytes_object(bytes), copied_array(offsets), copied_array(counts));
}

// Counted words, either of a counter or in a run.
class CountedWords : public WordSource {
 public:
    // `counted` is a Counter, or the path of a run. With `keep`, `release` leaves the counter as it is.
    CountedWords(nb::handle counted, bool keep) : keep_(keep) {
        if (nb::isinstance<PretokenCounter>(counted)) {
            counter_ = nb::cast<PretokenCounter*>(counted);
        } else {
            run_ = nb::cast<std::string>(counted);
        }
    }
    void visit(const std::function<void(Bytes, std::uint64_t)>& visit) override {
        if (!counter_) return visit_run(run_, visit);
        const WordCounts& words = counter_->words();
        for (std::uint32_t number = 1; number <= words.size(); ++number) {
            visit(words.bytes_of(number), words.count_of(number));
        }
    }
    void release() override {
        if (counter_ && !keep_) counter_->clear();
    }

 private:
    PretokenCounter* counter_ = nullptr;
    std::string run_;
    bool keep_;
};

// Bytes instead of an array, here and below: importing NumPy takes longer than training on a small text.
nb::bytes rows_of(std::span<const Merge> merges) {
    std::vector<std::uint64_t> rows;
    rows.reserve(3 * merges.size());
    for (const Merge& merge : merges) rows.insert(rows.end(), {merge.left, merge.right, merge.count});
    return bytes_object(rows);
}

// The Python functions that training calls. An exception in one of them, or a signal, stops training and is raised in
// the end.
class TrainingCallbacks {
 public:
    TrainingCallbacks(nb::callable progress, nb::callable save, nb::object trace)
        : progress_(std::move(progress)), save_(std::move(save)), trace_(std::move(trace)) {}

    bool report(std::span<const Merge> merges) {
        const AcquiredGil acquire;
        guarded([&] {
            if (nb::cast<bool>(progress_(merges.size()))) save_(rows_of(merges));
            failed_ = failed_ || PyErr_CheckSignals() != 0;
        });
        return !failed_;
    }

    void trace(const Merge& merge, std::span<const Id> word, std::size_t place) {
        const AcquiredGil acquire;
        if (failed_) return;
        guarded([&] {
            nb::list word_ids;
            for (const Id id : word) word_ids.append(id);
            trace_(merge.left, merge.right, merge.count, word_ids, place);
        });
    }

    void raise_failure() const {
        if (failed_) nb::raise_python_error();
    }

 private:
    template <class Call>
    void guarded(const Call& call) {
        try {
            call();
        } catch (nb::python_error& error) {
            error.restore();
            failed_ = true;
        }
    }

    nb::callable progress_;
    nb::callable save_;
    nb::object trace_;
    bool failed_ = false;
};

// The bytes of all tokens, joined: first those of the base as they were given, then the new ones.
class AllTokens {
 public:
    AllTokens(Bytes given, std::span<const Merge> merges, const Vocabulary& base) {
        bytes_.append(given.data(), given.size());
        ends_.reserve(merges.size());
        for (const Merge& merge : merges) {
            append(merge.left, base, given.size());
            append(merge.right, base, given.size());
            ends_.push_back(bytes_.size());
        }
    }
    nb::bytes bytes() const { return nb::bytes(bytes_.data(), bytes_.size()); }
    nb::bytes ends() const { return bytes_object(ends_); }

 private:
    void append(Id id, const Vocabulary& base, std::size_t given) {
        if (id < base.id_limit()) {
            const Bytes token = base.bytes_of(id);
            return bytes_.append(token.data(), token.size());
        }
        const std::size_t index = id - base.id_limit();
        const std::size_t begin = index ? ends_[index - 1] : given;
        const std::size_t size = ends_[index] - begin;
        bytes_.reserve(size);  // may move the bytes
        bytes_.append(bytes_.data() + begin, size);
    }

    Buffer<std::uint8_t> bytes_;
    std::vector<std::uint64_t> ends_;  // of the new tokens
};

nb::tuple train(nb::handle counted, nb::bytes tokens, const InputArray<std::uint64_t>& offsets,
                const InputArray<Id>& ids, std::size_t merges, std::uint64_t min_frequency,
                std::size_t max_token_length, std::size_t threads, nb::callable progress, nb::callable save,
                std::size_t traced, nb::object trace, bool keep, std::size_t memory) {
    CountedWords words(counted, keep);
    TrainingCallbacks callbacks(std::move(progress), std::move(save), std::move(trace));
    MergeOptions options;
    options.base = build_vocabulary(view_of(tokens), span_of(offsets), span_of(ids));
    options.merges = merges;
    options.min_frequency = min_frequency;
    options.max_token_length = max_token_length;
    options.threads = std::clamp<std::size_t>(threads, 1, kMostThreads);
    options.memory = memory;
    options.progress = [&](std::span<const Merge> learned) { return callbacks.report(learned); };
    options.traced = traced;
    options.trace = [&](const Merge& merge, std::span<const Id> word, std::size_t place) {
        callbacks.trace(merge, word, place);
    };
    LearnedMerges learned;
    {
        const ReleasedGil release;
        learned = train_merges(words, options);
    }
    callbacks.raise_failure();
    const AllTokens all(view_of(tokens), learned.merges, *options.base);
    return nb::make_tuple(rows_of(learned.merges), bytes_object(learned.uses), all.bytes(), all.ends());
}

void register_counter(nb::module_& module) {
    nb::class_<PretokenCounter>(module, "Counter", R"(Counts the pretokens of texts.

Args:
    splitter: What splits a text into pretokens.
    special: The special tokens, which split texts and are not counted.)")
        .def(
            "__init__",
            [](PretokenCounter* self, std::shared_ptr<const Splitter> splitter,
               std::shared_ptr<const SpecialTokens> special) {
                new (self) PretokenCounter(std::move(splitter), std::move(special));
            },
            nb::arg("splitter"), nb::arg("special"))
        .def(
            "add",
            [](PretokenCounter& self, nb::handle objects, std::uint64_t weight, std::size_t threads) {
                const TextArguments texts(objects);
                Interrupt interrupt(check_signals);
                const ReleasedGil release;
                self.add(texts.spans, weight, threads, &interrupt);
            },
            nb::arg("texts"), nb::arg("weight"), nb::arg("threads"),
            "Count each pretoken of the texts `weight` times, on several threads.")
        .def(
            "add_pretokens",
            [](PretokenCounter& self, nb::handle objects, std::uint64_t weight) {
                self.add_pretokens(TextArguments(objects).spans, weight);
            },
            nb::arg("pretokens"), nb::arg("weight"), "Count pretokens that were split elsewhere, `weight` times each.")
        .def(
            "certain_part",
            [](const PretokenCounter& self, nb::handle text) { return self.certain_part(TextArgument(text).bytes()); },
            nb::arg("text"),
            "Return how many bytes at the start of the text can be counted on their own, regardless of what follows "
            "it.")
        .def(
            "counts", &all_counts,
            "Return the bytes of all pretokens, joined, where each begins and the last ends ([pretokens + 1], uint64), "
            "and their counts ([pretokens], uint64).")
        .def("left_out", &PretokenCounter::left_out,
             "Return the number of bytes of the texts that belonged to no pretoken.")
        .def("cells", &PretokenCounter::cells,
             "Return the size of all distinct pretokens in bytes, plus one for each pretoken.")
        .def("memory", &PretokenCounter::memory,
             "Return the memory of the tables in bytes, including what they may soon need.")
        .def(
            "write_runs",
            [](PretokenCounter& self, const std::vector<std::string>& paths) {
                const ReleasedGil release;
                self.write_runs(paths);
            },
            nb::arg("paths"), "Write the table of each thread to a file, and clear the tables.")
        .def("tables", &PretokenCounter::tables,
             "Return the number of tables, one for each thread: `write_runs` takes as many paths.")
        .def("__len__", [](PretokenCounter& self) { return self.words().size(); });
}

}  // namespace

void register_training(nb::module_& module) {
    register_counter(module);
    module.def("merge_runs", &merge_runs, nb::arg("paths"), nb::arg("merged"), nb::call_guard<ReleasedGil>(),
               "Merge several runs into one, adding up the counts of each pretoken.");
    module.def("train_merges", &train, nb::arg("counted"), nb::arg("tokens"), nb::arg("offsets"), nb::arg("ids"),
               nb::arg("merges"), nb::arg("min_frequency"), nb::arg("max_token_length"), nb::arg("threads"),
               nb::arg("progress"), nb::arg("save"), nb::arg("traced") = 0, nb::arg("trace").none() = nb::none(),
               nb::arg("keep") = false, nb::arg("memory") = 0,
               R"(Learn merges from counted pretokens.

Args:
    counted: A Counter, which is cleared unless `keep` is set, or the path of a run.
    tokens: The bytes of the base vocabulary's tokens, joined.
    offsets: Where each token begins in `tokens`, and the end of the last. [tokens + 1], uint64
    ids: The id of each token. [tokens], uint32
    merges: How many merges to learn.
    min_frequency: The lowest count of a pair that is merged.
    max_token_length: The length of the longest token that is made, in bytes; 0 for no limit.
    threads: The number of threads.
    progress: A function that is called now and then with the number of merges learned.
    save: A function that is called with the merges so far, as below, when `progress` returns True.
    traced: For how many of the first merges `trace` is called.
    trace: A function that is called with the left id, the right id, the count, the ids of the most frequent word with
        that pair, and the index of the pair in them.
    keep: Whether the counter keeps its counts.
    memory: The memory limit in bytes, kept approximately; 0 for no limit.

Returns:
    The merges ([merges, 3]: left id, right id, count), how often each id is used in the end ([ids]), `tokens` with the
    bytes of the new tokens, and where each of these ends in it ([merges]). Numbers are uint64, as bytes.)");
}

}  // namespace bpe
