/* Runs one emulated kernel in a process of its own, for the sanitizers.
 *
 *     runner LIBRARY KERNEL FOLDER SHARED COOPERATIVE SCHEDULE grid.. block.. arguments..
 *
 * An argument is =NUMBER, or @BYTES: an array of its own, whose i-th is read from and written back
 * to FOLDER/i. Ends with 3 and a message in FOLDER/fault where the launch failed. */
#include <dlfcn.h>

#include "emulated.cpp"

namespace {

void transfer(const std::string &path, const char *mode, void *p, size_t bytes) {
    FILE *const f = fopen(path.c_str(), mode);
    const size_t done = !f ? 0 : *mode == 'r' ? fread(p, 1, bytes, f) : fwrite(p, 1, bytes, f);
    if (!f || done != bytes || fclose(f)) {
        perror(path.c_str());
        exit(2);
    }
}

}  // namespace

int main(int count, char **words) {
    constexpr int FIRST = 13;
    if (count < FIRST) return 2;
    const std::string folder = words[3], name = words[2];
    void *const library = dlopen(words[1], RTLD_NOW);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        return 2;
    }
    const auto attach = (void (*)(Machine *))dlsym(library, "emulated_attach");
    const auto run = (void (*)(void **))dlsym(library, ("emulated_run_" + name).c_str());
    attach(emulated_machine());

    unsigned extents[6];
    for (int i = 0; i < 6; i++) extents[i] = (unsigned)strtoul(words[7 + i], nullptr, 10);
    std::vector<Word> arguments;
    for (int i = FIRST; i < count; i++) {
        const Word number = strtoull(words[i] + 1, nullptr, 10);
        void *p = nullptr;
        if (*words[i] == '@') {
            if (posix_memalign(&p, 256, number)) return 2;
            transfer(folder + "/" + std::to_string(i - FIRST), "rb", p, number);
        }
        arguments.push_back(p ? (Word)p : number);
    }
    char message[4096];
    if (emulated_launch(run, arguments.data(), arguments.size(), extents, extents + 3,
                        strtoull(words[4], nullptr, 10), atoi(words[5]), atoll(words[6]), message,
                        sizeof message)) {
        transfer(folder + "/fault", "wb", message, strlen(message));
        return 3;
    }
    for (int i = FIRST; i < count; i++)
        if (*words[i] == '@')
            transfer(folder + "/" + std::to_string(i - FIRST), "wb", (void *)arguments[i - FIRST],
                     strtoull(words[i] + 1, nullptr, 10));
    return 0;
}
